<?php
// mysqli's prepared statements over mysqlnd: bound parameters and results, cursors, long data. Many connections in turns.

declare(strict_types=1);
require __DIR__ . '/common.php';
$driver = 'php-mysqli-prepared';
const TABLE = 't_mysqli_prepared';

function connect(): mysqli
{
    $c = mysqli_init();
    $flags = tls() ? MYSQLI_CLIENT_SSL | MYSQLI_CLIENT_SSL_DONT_VERIFY_SERVER_CERT : 0;
    $c->real_connect(setting('HOST'), setting('USER'), setting('PASSWORD'), setting('DATABASE'), (int) setting('PORT'), null, $flags);
    $c->set_charset('utf8mb4');
    return $c;
}

function one(mysqli $c, string $sql, array $args = []): array
{
    return texts($c->execute_query($sql, $args)->fetch_row());
}

/** A value of some size that differs between connections and rounds. */
function value(int $i, int $round): string
{
    return str_repeat(hash('sha256', "$i $round", true), 2000 + 10 * $round);
}

mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
$clients = (int) (getenv('SP_CLIENTS') ?: 20);
$rounds = (int) (getenv('SP_ROUNDS') ?: 4);
$all = array_map(fn () => connect(), range(1, $clients));
$all[0]->query('DROP TABLE IF EXISTS ' . TABLE);
$all[0]->query('CREATE TABLE ' . TABLE . ' (id BIGINT AUTO_INCREMENT PRIMARY KEY, owner INT, name VARCHAR(40), d DOUBLE, big LONGBLOB,'
    . ' KEY (owner)) CHARACTER SET utf8mb4');

// Every connection keeps these for all of the program, with variables bound to them once.
$insert = $count = $list = $cursor = $bound = [];
foreach ($all as $i => $c) {
    $bound[$i] = ['name' => '', 'd' => 0.0, 'big' => null, 'n' => 0];
    $insert[$i] = $c->prepare('INSERT INTO ' . TABLE . " (owner, name, d, big) VALUES ($i, ?, ?, ?)");
    $insert[$i]->bind_param('sdb', $bound[$i]['name'], $bound[$i]['d'], $bound[$i]['big']);
    $count[$i] = $c->prepare('SELECT COUNT(*) FROM ' . TABLE . ' WHERE owner = ?');
    $owner[$i] = $i;
    $count[$i]->bind_param('i', $owner[$i]);
    $list[$i] = $c->prepare("SELECT id, name, d, big, $i FROM " . TABLE . " WHERE owner = $i ORDER BY id");
    $cursor[$i] = $c->prepare("SELECT id, name, d, big, $i FROM " . TABLE . " WHERE owner = $i ORDER BY id");
    $cursor[$i]->attr_set(MYSQLI_STMT_ATTR_CURSOR_TYPE, MYSQLI_CURSOR_TYPE_READ_ONLY);
}
for ($round = 0; $round < $rounds; $round++) {
    foreach ($all as $i => $c) {
        $bound[$i]['name'] = "round $round \u{1f600}";
        $bound[$i]['d'] = $round + 0.25 * $i;
        foreach (str_split(value($i, $round), 30_000) as $piece) {
            $insert[$i]->send_long_data(2, $piece);
        }
        $insert[$i]->execute();
        equal('affected rows', $insert[$i]->affected_rows, 1);
        $id = $insert[$i]->insert_id;
        equal('the row of that id', one($c, 'SELECT owner, name FROM ' . TABLE . ' WHERE id = ?', [$id]), [(string) $i, "round $round \u{1f600}"]);
    }
    foreach ($all as $i => $c) {
        $count[$i]->execute();
        $count[$i]->bind_result($bound[$i]['n']);
        equal('a row', $count[$i]->fetch(), true);
        equal('own rows', $bound[$i]['n'], $round + 1);
        $count[$i]->free_result();
    }
    foreach ($all as $i => $c) {
        // All at once, and by a cursor, whose rows are fetched one by one.
        foreach ([$list[$i], $cursor[$i]] as $statement) {
            $statement->execute();
            $statement->bind_result($id, $name, $d, $big, $who);
            for ($n = 0; $statement->fetch(); $n++) {
                equal('listed row', [$name, $d, $big === value($i, $n), $who], ["round $n \u{1f600}", $n + 0.25 * $i, true, $i]);
            }
            equal('listed rows', $n, $round + 1);
            $statement->free_result();
        }
    }
    foreach ($all as $i => $c) {
        $c->begin_transaction();
        $c->execute_query('UPDATE ' . TABLE . ' SET name = ? WHERE owner = ?', ['changed', $i]);
        equal('rows changed', $c->affected_rows, $round + 1);
        $c->rollback();
        // Given back in the middle of its rows.
        $cursor[$i]->execute();
        $cursor[$i]->fetch();
        $cursor[$i]->reset();
    }
}
foreach ($all as $i => $c) {
    equal('types', one($c, TYPES . ' WHERE ? = 1', [1]), EXPECTED);
    $insert[$i]->close();
    equal('afterwards', one($c, 'SELECT ? * 2', [$i]), [(string) (2 * $i)]);
}
finish();
