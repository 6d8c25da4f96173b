# attacker.pl ADDRESS PORT N: N connections, sixty a second, each closed without a word. Says how many were opened.
use strict; use warnings; use Socket qw(:DEFAULT IPPROTO_TCP);
my ($address, $port, $wanted) = @ARGV;
my $to = sockaddr_in($port, inet_aton($address));
my $opened = 0;
for (1 .. $wanted) {
  socket(my $client, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
  # Waits half a second for an answer, where none comes. In microseconds.
  setsockopt($client, SOL_SOCKET, SO_SNDTIMEO, pack('l!l!', 0, 500_000));
  $opened++ if connect($client, $to);
  # No orphan socket is left to answer the server's repeated SYN-ACK: such an answer would end the deferral.
  setsockopt($client, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
  close($client);
  select(undef, undef, undef, 1 / 60);
}
print "$opened\n";
