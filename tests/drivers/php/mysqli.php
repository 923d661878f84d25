<?php
// PHP's mysqli, over mysqlnd. Run with -d mysqli.allow_local_infile=1.

declare(strict_types=1);
require __DIR__ . '/common.php';
$driver = 'php-mysqli';
const TABLE = 't_mysqli';

function connect(): mysqli
{
    $c = mysqli_init();
    $c->options(MYSQLI_OPT_LOCAL_INFILE, 1);
    $flags = tls() ? MYSQLI_CLIENT_SSL | MYSQLI_CLIENT_SSL_DONT_VERIFY_SERVER_CERT : 0;
    $c->real_connect(setting('HOST'), setting('USER'), setting('PASSWORD'), setting('DATABASE'), (int) setting('PORT'), null, $flags);
    $c->set_charset('utf8mb4');
    return $c;
}

function one(mysqli $c, string $sql, ?array $args = null): array
{
    return texts($c->execute_query($sql, $args)->fetch_row());
}

function fails(mysqli $c, string $what, string $sql, int $code, ?array $args = null): void
{
    $got = 0;
    try {
        $args === null ? $c->query($sql) : $c->execute_query($sql, $args);
    } catch (mysqli_sql_exception $e) {
        $got = $e->getCode();
    }
    equal($what, $got, $code);
}

mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
$c = connect();
$other = setting('DATABASE') . '_other';
$c->query('DROP TABLE IF EXISTS ' . TABLE);
$c->query(table(TABLE));

equal('types, text', texts($c->query(TYPES)->fetch_row()), EXPECTED);
equal('types, binary', one($c, TYPES), EXPECTED);
equal('parameters', one($c, 'SELECT ?, ?, ?', ["it's \u{1f600} \\", null, 42]), ["it's \u{1f600} \\", null, '42']);

$c->query('INSERT INTO ' . TABLE . " (name) VALUES ('a'), ('b'), ('c')");
equal('affected rows', $c->affected_rows, 3);
$first = (string) $c->insert_id; // the next statement resets it
equal('last insert id', one($c, 'SELECT LAST_INSERT_ID()'), [$first]);
$statement = $c->prepare('INSERT INTO ' . TABLE . ' (name, short) VALUES (?, ?)');
foreach (['d', 'e'] as $name) {
    $short = 'x';
    $statement->bind_param('ss', $name, $short);
    $statement->execute();
    equal('prepared insert', $statement->affected_rows, 1);
}
$statement->close();
$cursor = $c->prepare('SELECT id FROM ' . TABLE . ' ORDER BY id');
$cursor->attr_set(MYSQLI_STMT_ATTR_CURSOR_TYPE, MYSQLI_CURSOR_TYPE_READ_ONLY);
$cursor->execute();
$cursor->bind_result($id);
$ids = [];
while ($cursor->fetch()) {
    $ids[] = $id;
}
equal('rows by a cursor', $ids, [1, 2, 3, 4, 5]);
$cursor->close();

$c->begin_transaction();
$c->query('INSERT INTO ' . TABLE . " (name) VALUES ('rolled back')");
$c->rollback();
equal('after rollback', one($c, 'SELECT COUNT(*) FROM ' . TABLE), ['5']);
$c->begin_transaction();
$c->query('INSERT INTO ' . TABLE . " (name) VALUES ('committed')");
$c->commit();
equal('after commit', one($c, 'SELECT COUNT(*) FROM ' . TABLE), ['6']);

fails($c, 'duplicate key, text', 'INSERT INTO ' . TABLE . " (name) VALUES ('a')", 1062);
fails($c, 'duplicate key, binary', 'INSERT INTO ' . TABLE . ' (name) VALUES (?)', 1062, ['a']);
equal('usable after an error', one($c, 'SELECT 7'), ['7']);

$c->query("SET sql_mode = ''");
$c->query('INSERT INTO ' . TABLE . " (name, short) VALUES ('w', 'abcdefghij')");
equal('warning count', $c->warning_count, 1);
$warnings = $c->query('SHOW WARNINGS')->fetch_all(MYSQLI_ASSOC);
equal('warnings', [$warnings[0]['Level'], (int) $warnings[0]['Code'], count($warnings)], ['Warning', 1265, 1]);

$c->query("SET time_zone = '+03:00', sql_mode = 'ANSI_QUOTES'");
equal('time zone', one($c, 'SELECT @@time_zone, FROM_UNIXTIME(0)'), ['+03:00', '1970-01-01 03:00:00']);
equal('sql_mode', one($c, 'SELECT "name" FROM "' . TABLE . '" WHERE id = 1'), ['a']);
$c->query('SET @a = 5');
equal('user variable', one($c, 'SELECT @a'), ['5']);

$c->multi_query("SELECT 1; SELECT 'two'; SET @m = 3; SELECT @m");
$results = [];
do {
    $result = $c->store_result();
    $results[] = $result ? texts($result->fetch_row()) : [];
} while ($c->more_results() && $c->next_result());
equal('multi-statements', $results, [['1'], ['two'], [], ['3']]);

$path = infile();
$c->query("LOAD DATA LOCAL INFILE '$path' INTO TABLE " . TABLE . ' (name, short)');
equal('rows loaded', $c->affected_rows, 5000);
unlink($path);

if ((int) one($c, 'SELECT @@max_allowed_packet')[0] > LARGE + 1024 * 1024) {
    $value = large_value();
    $statement = $c->prepare('INSERT INTO ' . TABLE . " (name, big) VALUES ('large', ?)");
    $empty = null;
    $statement->bind_param('b', $empty);
    foreach (str_split($value, 1024 * 1024) as $piece) {
        $statement->send_long_data(0, $piece);
    }
    $statement->execute();
    equal('20 MB there and back', one($c, 'SELECT big FROM ' . TABLE . " WHERE name = 'large'")[0] === $value, true);
    $c->query('UPDATE ' . TABLE . " SET big = '" . $c->real_escape_string(str_repeat('ab', intdiv(LARGE, 2))) . "' WHERE name = 'large'");
    equal('20 MB as text', one($c, 'SELECT SHA2(big, 256) FROM ' . TABLE . " WHERE name = 'large'"), [hash('sha256', str_repeat('ab', intdiv(LARGE, 2)))]);
}

$c->select_db($other);
equal('select_db', one($c, 'SELECT DATABASE()'), [$other]);
$c->change_user(setting('USER'), setting('PASSWORD'), setting('DATABASE'));
equal('change_user', one($c, 'SELECT DATABASE(), @a'), [setting('DATABASE'), null]);
equal('stat', str_contains((string) $c->stat(), 'Uptime'), true);
$c->query('DROP TABLE ' . TABLE);
$c->close();
finish();
