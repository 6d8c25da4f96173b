# service.pl PORT: says back what it is told. Its listener defers, as Apache's does: a connection on which nobody speaks is never accepted.
use strict; use warnings; use Socket qw(:DEFAULT IPPROTO_TCP);
use constant { TCP_DEFER_ACCEPT => 9, SECONDS => 3 };
my $port = shift;
socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1) or die "SO_REUSEADDR: $!";
setsockopt($listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, SECONDS) or die "TCP_DEFER_ACCEPT: $!";
bind($listener, sockaddr_in($port, INADDR_ANY)) or die "port $port: $!";
listen($listener, 4096) or die "listen: $!";
my %open = (fileno($listener) => $listener);
while (1) {
  my $ready = '';
  vec($ready, $_, 1) = 1 for keys %open;
  next if select($ready, undef, undef, undef) < 0;
  for my $number (grep { vec($ready, $_, 1) } keys %open) {
    if ($number == fileno($listener)) {
      if (accept(my $client, $listener)) { $open{fileno($client)} = $client }
    } elsif (sysread($open{$number}, my $said, 4096)) {
      syswrite($open{$number}, $said);
    } else {
      close(delete $open{$number});
    }
  }
}
