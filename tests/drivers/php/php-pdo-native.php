<?php
// PDO with emulation off, as frameworks set it: every statement is prepared by the server. Many connections in turns.

declare(strict_types=1);
require __DIR__ . '/common.php';
$driver = 'php-pdo-native';
const TABLE = 't_pdo_native';
const PLACE = 't_pdo_place';

function connect(): PDO
{
    $options = [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_EMULATE_PREPARES => false];
    if (tls()) {
        // PDO asks for TLS only if some file is named; with verification off it is not read.
        $options[PDO::MYSQL_ATTR_SSL_CA] = '/dev/null';
        $options[PDO::MYSQL_ATTR_SSL_VERIFY_SERVER_CERT] = false;
    }
    $where = 'mysql:host=' . setting('HOST') . ';port=' . setting('PORT') . ';dbname=' . setting('DATABASE') . ';charset=utf8mb4';
    return new PDO($where, setting('USER'), setting('PASSWORD'), $options);
}

function one(PDO $c, string $sql, array $args = []): array
{
    $statement = $c->prepare($sql);
    $statement->execute($args);
    $row = texts($statement->fetch(PDO::FETCH_NUM));
    $statement->closeCursor();
    return $row;
}

function run(PDO $c, string $sql, array $args = []): int
{
    $statement = $c->prepare($sql);
    $statement->execute($args);
    return $statement->rowCount();
}

function error_of(callable $what): int
{
    try {
        $what();
    } catch (PDOException $e) {
        return (int) $e->errorInfo[1];
    }
    return 0;
}

$clients = (int) (getenv('SP_CLIENTS') ?: 20);
$rounds = (int) (getenv('SP_ROUNDS') ?: 6);
$all = array_map(fn () => connect(), range(1, $clients));
$other = setting('DATABASE') . '_other';
foreach ([TABLE, PLACE, "$other." . PLACE] as $name) {
    run($all[0], "DROP TABLE IF EXISTS $name");
}
run($all[0], 'CREATE TABLE ' . TABLE . ' (id BIGINT AUTO_INCREMENT PRIMARY KEY, owner INT, name VARCHAR(60), bits BLOB,'
    . ' UNIQUE (owner, name)) CHARACTER SET utf8mb4');
foreach (['here' => PLACE, 'there' => "$other." . PLACE] as $word => $name) {
    run($all[0], "CREATE TABLE $name (place VARCHAR(10)) CHARACTER SET utf8mb4");
    run($all[0], "INSERT INTO $name VALUES (?)", [$word]);
}

// Every connection keeps these for all of the program.
$insert = $select = $here = [];
foreach ($all as $i => $c) {
    equal('types', one($c, TYPES . ' WHERE 1 = ?', [1]), EXPECTED);
    $insert[$i] = $c->prepare('INSERT INTO ' . TABLE . ' (owner, name, bits) VALUES (?, ?, ?)');
    $select[$i] = $c->prepare("SELECT owner, name, bits, $i FROM " . TABLE . ' WHERE id = :id');
    $here[$i] = $c->prepare('SELECT place, DATABASE() FROM ' . PLACE . ' WHERE ? = 1');
}
for ($round = 0; $round < $rounds; $round++) {
    $ids = [];
    foreach ($all as $i => $c) {
        $bits = $round % 3 === 2 ? null : str_repeat("\xff\x00" . chr($i), 300 * $round);
        $insert[$i]->execute([$i, "round $round \u{1f600}", $bits]);
        equal('affected rows', $insert[$i]->rowCount(), 1);
        $ids[$i] = (int) $c->lastInsertId();
        equal('a key that is there', error_of(fn () => $insert[$i]->execute([$i, "round $round \u{1f600}", null])), 1062);
    }
    equal('different ids', count(array_unique($ids)), $clients);
    foreach ($all as $i => $c) {
        $bits = $round % 3 === 2 ? null : str_repeat("\xff\x00" . chr($i), 300 * $round);
        $select[$i]->bindValue(':id', $ids[$i], PDO::PARAM_INT);
        $select[$i]->execute();
        equal('own row', $select[$i]->fetch(PDO::FETCH_NUM), [$i, "round $round \u{1f600}", $bits, $i]);
        $select[$i]->closeCursor();
    }
    // One transaction after another: each holds a connection of the proxy's while it lasts.
    foreach ($all as $i => $c) {
        $c->beginTransaction();
        equal('rows changed', run($c, 'UPDATE ' . TABLE . ' SET name = CONCAT(name, ?) WHERE owner = ?', ['!', $i]), $round + 1);
        $c->exec('SAVEPOINT a');
        run($c, 'DELETE FROM ' . TABLE . ' WHERE owner = ?', [$i]);
        $c->exec('ROLLBACK TO SAVEPOINT a');
        equal('inside', one($c, 'SELECT COUNT(*) FROM ' . TABLE . " WHERE owner = ? AND name LIKE '%!'", [$i]), [(string) ($round + 1)]);
        $i % 2 ? $c->rollBack() : $c->commit();
        if ($i % 2 === 0) {
            run($c, "UPDATE " . TABLE . " SET name = REPLACE(name, '!', '') WHERE owner = ?", [$i]);
        }
    }
}
foreach ($all as $i => $c) {
    equal('rows of all rounds', one($c, 'SELECT COUNT(*), SUM(name LIKE ?) FROM ' . TABLE . ' WHERE owner = ?', ['%!', $i]), [(string) $rounds, '0']);
    $database = $i % 2 ? $other : setting('DATABASE');
    $c->exec("USE $database");
    $zone = sprintf('+%02d:00', $i % 12 + 1);
    $c->exec("SET time_zone = '$zone'");
}
foreach ($all as $i => $c) {
    $here[$i]->execute([1]);
    equal('a statement of before', texts($here[$i]->fetch(PDO::FETCH_NUM)), ['here', setting('DATABASE')]);
    $here[$i]->closeCursor();
    equal('a statement of now', one($c, 'SELECT place FROM ' . PLACE . ' WHERE ? = 1', [1]), [$i % 2 ? 'there' : 'here']);
    equal('time zone', substr(one($c, 'SELECT CAST(FROM_UNIXTIME(?) AS CHAR)', [0])[0], 0, 19), sprintf('1970-01-01 %02d:00:00', $i % 12 + 1));
    equal('syntax error', error_of(fn () => $c->prepare('SELEC ?')), 1064);
    equal('usable afterwards', one($c, 'SELECT ? + 1', [$i]), [(string) ($i + 1)]);
}
finish();
