#!/usr/bin/perl
# DBI with DBD::mysql, emulated and server-side prepared statements.
use strict;
use warnings;
use utf8;
use DBI;
use Digest::SHA qw(sha256_hex);
use File::Temp;

my $table = 't_dbi';
my $checks = 0;
my $database = $ENV{SP_DATABASE};
my $other = "${database}_other";

sub fail {
    my ($what, $detail) = @_;
    binmode STDERR, ':encoding(UTF-8)';
    print STDERR "FAILED perl-dbi: $what: $detail\n";
    exit 1;
}

sub say_value { my ($value) = @_; return defined $value ? substr($value, 0, 200) : 'NULL' }

sub equal {
    my ($what, $got, $expected) = @_;
    my $same = defined $got && defined $expected ? $got eq $expected : !defined $got && !defined $expected;
    fail($what, 'expected ' . say_value($expected) . ', got ' . say_value($got)) unless $same;
    $checks++;
}

sub dial {
    my ($prepare) = @_;
    # Optional, since MariaDB's C library cannot be told from here to insist.
    my $tls = ($ENV{SP_TLS} // '') eq '1' ? ';mysql_ssl=1;mysql_ssl_optional=1' : '';
    my $where = "DBI:mysql:database=$database;host=$ENV{SP_HOST};port=$ENV{SP_PORT}"
        . ";mysql_server_prepare=$prepare;mysql_local_infile=1;mysql_multi_statements=" . (1 - $prepare) . $tls;
    return DBI->connect($where, $ENV{SP_USER}, $ENV{SP_PASSWORD}, { RaiseError => 1, PrintError => 0, AutoCommit => 1, mysql_enable_utf8mb4 => 1 });
}

my $types = "SELECT 1, CAST(-9223372036854775808 AS SIGNED), 18446744073709551615, CAST('12345.678901' AS DECIMAL(20,6)),"
    . " NULL, 'héllo', '😀日本', '', CAST('2024-02-29' AS DATE), CAST('-12:34:56' AS TIME), HEX(CAST(x'ff00fe' AS BINARY(3)))";
my @expected = (
    '1', '-9223372036854775808', '18446744073709551615', '12345.678901',
    undef, 'héllo', '😀日本', '', '2024-02-29', '-12:34:56', 'FF00FE',
);

for my $prepare (0, 1) {
    my $how = $prepare ? 'prepared' : 'emulated';
    my $c = dial($prepare);
    $c->do("DROP TABLE IF EXISTS $table");
    $c->do("CREATE TABLE $table (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) UNIQUE, short VARCHAR(5), big LONGBLOB)"
            . ' CHARACTER SET utf8mb4');
    my @row = $c->selectrow_array($types);
    equal("column $_, $how", $row[$_], $expected[$_]) for 0 .. $#expected;
    my ($binary) = $c->selectrow_array("SELECT CAST(x'ff00fe' AS BINARY(3))");
    equal("binary, $how", unpack('H*', $binary), 'ff00fe');
    @row = $c->selectrow_array('SELECT ?, ?', undef, "it's 😀 \\", undef);
    equal("parameter, $how", $row[0], "it's 😀 \\");
    equal("NULL parameter, $how", $row[1], undef);

    equal("affected rows, $how", $c->do("INSERT INTO $table (name) VALUES ('a'), ('b'), ('c')"), 3);
    equal("last insert id, $how", $c->{mysql_insertid}, ($c->selectrow_array('SELECT LAST_INSERT_ID()'))[0]);
    my $insert = $c->prepare("INSERT INTO $table (name) VALUES (?)");
    $c->begin_work;
    $insert->execute($_) for qw(d e);
    equal("inside a transaction, $how", ($c->selectrow_array("SELECT COUNT(*) FROM $table"))[0], 5);
    $c->rollback;
    equal("after rollback, $how", ($c->selectrow_array("SELECT COUNT(*) FROM $table"))[0], 3);
    $c->begin_work;
    $insert->execute('d');
    $c->commit;
    equal("after commit, $how", ($c->selectrow_array("SELECT COUNT(*) FROM $table"))[0], 4);

    eval { $insert->execute('a') };
    equal("duplicate key, $how", $insert->err, 1062);
    equal("usable after an error, $how", ($c->selectrow_array('SELECT 7'))[0], 7);

    $c->do("SET sql_mode = ''");
    $c->do("INSERT INTO $table (name, short) VALUES ('w', 'abcdefghij')");
    my $warnings = $c->selectall_arrayref('SHOW WARNINGS');
    # Like PDO's: MySQL cannot prepare SHOW WARNINGS, and that error is then the one diagnostic there is.
    my $refused = $prepare && ($c->selectrow_array('SELECT VERSION()'))[0] !~ /MariaDB/;
    equal("warnings, $how", join(',', map { "$_->[0] $_->[1]" } @$warnings), $refused ? 'Error 1295' : 'Warning 1265');
    $c->do("SET time_zone = '+03:00'");
    $c->do("SET sql_mode = 'ANSI_QUOTES'");
    equal("time zone, $how", join(' ', $c->selectrow_array('SELECT @@time_zone, FROM_UNIXTIME(0)')), '+03:00 1970-01-01 03:00:00');
    equal("sql_mode, $how", ($c->selectrow_array("SELECT \"name\" FROM \"$table\" WHERE id = ?", undef, 1))[0], 'a');
    $c->do('SET @a = 5');
    equal("user variable, $how", ($c->selectrow_array('SELECT @a'))[0], 5);

    my $size = 20 * 1024 * 1024;
    if (($c->selectrow_array('SELECT @@max_allowed_packet'))[0] > $size + 1024 * 1024) {
        my $value = 'ab' x ($size / 2);
        $c->do("INSERT INTO $table (name, big) VALUES ('large', ?)", undef, $value);
        equal("20 MB there, $how", ($c->selectrow_array("SELECT SHA2(big, 256) FROM $table WHERE name = 'large'"))[0], sha256_hex($value));
        $c->{LongReadLen} = $size;
        my ($got) = $c->selectrow_array("SELECT big FROM $table WHERE name = 'large'");
        equal("20 MB back, $how", sha256_hex($got), sha256_hex($value));
    }
    my $file = File::Temp->new;
    print $file "row $_\tabc\n" for 1 .. 5000;
    close $file;
    equal("rows loaded, $how", $c->do("LOAD DATA LOCAL INFILE '$file' INTO TABLE $table (name, short)"), 5000);

    if (!$prepare) {
        my $several = $c->prepare("SELECT 1; SELECT 'two'; SELECT 3");
        $several->execute;
        my @results;
        do { push @results, $several->fetchrow_array } while ($several->more_results);
        equal('multi-statements', "@results", '1 two 3');
    }
    equal("ping, $how", $c->ping ? 1 : 0, 1);
    $c->do("USE $other");
    equal("USE, $how", ($c->selectrow_array('SELECT DATABASE()'))[0], $other);
    $c->do("DROP TABLE $database.$table");
    $c->disconnect;
}
print "ok perl-dbi: $checks checks\n";
