#!/usr/bin/perl
# DBD::mysql with server-side prepared statements. Many connections in turns, each with statements that it keeps.
use strict;
use warnings;
use utf8;
use DBI qw(:sql_types);

my $table = 't_dbi_prepared';
my $checks = 0;
my $clients = $ENV{SP_CLIENTS} // 20;
my $rounds = $ENV{SP_ROUNDS} // 6;

sub fail {
    my ($what, $detail) = @_;
    binmode STDERR, ':encoding(UTF-8)';
    print STDERR "FAILED perl-dbi-prepared: $what: $detail\n";
    exit 1;
}

sub equal {
    my ($what, $got, $expected) = @_;
    my $same = defined $got && defined $expected ? $got eq $expected : !defined $got && !defined $expected;
    fail($what, 'expected ' . substr($expected // 'NULL', 0, 200) . ', got ' . substr($got // 'NULL', 0, 200)) unless $same;
    $checks++;
}

sub dial {
    # Optional, since MariaDB's C library cannot be told from here to insist.
    my $tls = ($ENV{SP_TLS} // '') eq '1' ? ';mysql_ssl=1;mysql_ssl_optional=1' : '';
    my $where = "DBI:mysql:database=$ENV{SP_DATABASE};host=$ENV{SP_HOST};port=$ENV{SP_PORT};mysql_server_prepare=1$tls";
    return DBI->connect($where, $ENV{SP_USER}, $ENV{SP_PASSWORD}, { RaiseError => 1, PrintError => 0, AutoCommit => 1, mysql_enable_utf8mb4 => 1 });
}

my @all = map { dial() } 1 .. $clients;
$all[0]->do("DROP TABLE IF EXISTS $table");
$all[0]->do("CREATE TABLE $table (id BIGINT AUTO_INCREMENT PRIMARY KEY, owner INT, name VARCHAR(40), n BIGINT, UNIQUE (owner, name))"
        . ' CHARACTER SET utf8mb4');

my (@insert, @select, @add);
for my $i (0 .. $#all) {
    $insert[$i] = $all[$i]->prepare("INSERT INTO $table (owner, name, n) VALUES (?, ?, ?)");
    $select[$i] = $all[$i]->prepare("SELECT owner, name, n, $i FROM $table WHERE id = ?");
    $add[$i] = $all[$i]->prepare("UPDATE $table SET n = n + ? WHERE owner = ?");
}
for my $round (1 .. $rounds) {
    my @ids;
    for my $i (0 .. $#all) {
        my $n = $round % 3 ? $i - 9_000_000_000 : undef;
        $insert[$i]->bind_param(1, $i, SQL_INTEGER);
        $insert[$i]->bind_param(2, "round $round 😀");
        $insert[$i]->bind_param(3, $n, SQL_BIGINT);
        equal('affected rows', $insert[$i]->execute, 1);
        $ids[$i] = $insert[$i]->{mysql_insertid};
        eval { $insert[$i]->execute };
        equal('duplicate key', $insert[$i]->err, 1062);
    }
    for my $i (0 .. $#all) {
        $select[$i]->execute($ids[$i]);
        my @row = $select[$i]->fetchrow_array;
        equal('owner', $row[0], $i);
        equal('name', $row[1], "round $round 😀");
        equal('number', $row[2], $round % 3 ? $i - 9_000_000_000 : undef);
        equal('own statement', $row[3], $i);
        $select[$i]->finish;
    }
    for my $i (0 .. $#all) {
        my $c = $all[$i];
        my ($before) = $c->selectrow_array("SELECT SUM(n) FROM $table WHERE owner = ?", undef, $i);
        my ($with) = $c->selectrow_array("SELECT COUNT(n) FROM $table WHERE owner = ?", undef, $i);
        # The driver asks for the rows found, not for those that are different now.
        $c->begin_work;
        equal('rows changed', $add[$i]->execute(5, $i), $round);
        my ($inside) = $c->selectrow_array("SELECT SUM(n) FROM $table WHERE owner = ?", undef, $i);
        equal('inside', $inside, $before + 5 * $with);
        $add[$i]->execute(-5, $i);
        $i % 2 ? $c->rollback : $c->commit;
        my ($after) = $c->selectrow_array("SELECT SUM(n) FROM $table WHERE owner = ?", undef, $i);
        equal('afterwards', $after, $before);
    }
}
for my $i (0 .. $#all) {
    my $c = $all[$i];
    my $mine = $c->selectall_arrayref("SELECT name FROM $table WHERE owner = ? ORDER BY id", undef, $i);
    equal('all names', join(',', map { $_->[0] } @$mine), join(',', map { "round $_ 😀" } 1 .. $rounds));
    my $zone = sprintf '+%02d:00', $i % 12 + 1;
    $c->do("SET time_zone = '$zone'");
}
for my $i (0 .. $#all) {
    my $c = $all[$i];
    my ($time) = $c->selectrow_array('SELECT CAST(FROM_UNIXTIME(?) AS CHAR)', undef, 0);
    equal('time zone', substr($time, 0, 19), sprintf('1970-01-01 %02d:00:00', $i % 12 + 1));
    eval { $c->do('DELET FROM t WHERE a = ?', undef, 1) };
    equal('syntax error', $c->err, 1064);
    equal('usable afterwards', ($c->selectrow_array('SELECT ? + 1', undef, $i))[0], $i + 1);
    $c->disconnect;
}
print "ok perl-dbi-prepared: $checks checks\n";
