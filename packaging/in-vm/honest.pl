# honest.pl ADDRESS PORT: keeps one connection and opens one a second, says something on each five times a second and hears it back, until
# SIGTERM. Then it says how many answers came, and how many did not.
use strict; use warnings; use Socket qw(:DEFAULT IPPROTO_TCP);
my ($address, $port) = @ARGV;
my $to = sockaddr_in($port, inet_aton($address));
my ($answered, $lost, $stop) = (0, 0, 0);
$SIG{TERM} = sub { $stop = 1 };
sub opened {
  socket(my $client, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
  setsockopt($client, SOL_SOCKET, $_, pack('l!l!', 3, 0)) for SO_SNDTIMEO, SO_RCVTIMEO;
  return connect($client, $to) ? $client : undef;
}
sub exchange {
  my ($client, $said) = (shift, '');
  my $well = $client && syswrite($client, "hello\n") && sysread($client, $said, 100) && $said eq "hello\n";
  $well ? $answered++ : $lost++;
}
my ($kept, $round) = (opened(), 0);
until ($stop) {
  exchange($kept);
  exchange(opened()) if $round++ % 5 == 0;
  select(undef, undef, undef, 0.2);
}
print "$answered answered, $lost lost\n";
