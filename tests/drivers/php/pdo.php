<?php
// PHP's PDO, with emulated and with real prepared statements.

declare(strict_types=1);
require __DIR__ . '/common.php';
$driver = 'php-pdo';
const TABLE = 't_pdo';

function connect(bool $emulate): PDO
{
    $options = [
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
        PDO::ATTR_EMULATE_PREPARES => $emulate,
        PDO::MYSQL_ATTR_LOCAL_INFILE => true,
        PDO::MYSQL_ATTR_MULTI_STATEMENTS => true,
    ];
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

function exercise(bool $emulate): void
{
    $how = $emulate ? 'emulated' : 'prepared';
    $c = connect($emulate);
    $c->exec('DROP TABLE IF EXISTS ' . TABLE);
    $c->exec(table(TABLE));
    equal("types, $how", one($c, TYPES), EXPECTED);
    equal("parameters, $how", one($c, 'SELECT ?, ?', ["it's \u{1f600} \\", null]), ["it's \u{1f600} \\", null]);
    equal("affected rows, $how", $c->exec('INSERT INTO ' . TABLE . " (name) VALUES ('a'), ('b'), ('c')"), 3);
    equal("last insert id, $how", [$c->lastInsertId()], one($c, 'SELECT LAST_INSERT_ID()'));

    $c->beginTransaction();
    $insert = $c->prepare('INSERT INTO ' . TABLE . ' (name) VALUES (?)');
    $insert->execute(['d']);
    $insert->execute(['e']);
    equal("inside a transaction, $how", one($c, 'SELECT COUNT(*) FROM ' . TABLE), ['5']);
    $c->rollBack();
    equal("after rollback, $how", one($c, 'SELECT COUNT(*) FROM ' . TABLE), ['3']);
    $c->beginTransaction();
    $insert->execute(['d']);
    $c->commit();
    equal("after commit, $how", one($c, 'SELECT COUNT(*) FROM ' . TABLE), ['4']);

    $code = 0;
    try {
        $insert->execute(['a']);
    } catch (PDOException $e) {
        $code = (int) $e->errorInfo[1];
    }
    equal("duplicate key, $how", $code, 1062);
    equal("usable after an error, $how", one($c, 'SELECT 7'), ['7']);

    $c->exec("SET sql_mode = ''");
    $c->exec('INSERT INTO ' . TABLE . " (name, short) VALUES ('w', 'abcdefghij')");
    $warnings = $c->query('SHOW WARNINGS')->fetchAll(PDO::FETCH_NUM);
    // PDO first tries to prepare SHOW WARNINGS. MySQL cannot, and that error is then the one diagnostic there is.
    $refused = !$emulate && !str_contains(one($c, 'SELECT VERSION()')[0], 'MariaDB');
    $expected = $refused ? ['Error', 1295, 1] : ['Warning', 1265, 1];
    equal("warnings, $how", [$warnings[0][0], (int) $warnings[0][1], count($warnings)], $expected);

    $c->exec("SET time_zone = '+03:00'");
    $c->exec("SET sql_mode = 'ANSI_QUOTES'");
    equal("time zone, $how", one($c, 'SELECT @@time_zone, FROM_UNIXTIME(0)'), ['+03:00', '1970-01-01 03:00:00']);
    equal("sql_mode, $how", one($c, 'SELECT "name" FROM "' . TABLE . '" WHERE id = ?', [1]), ['a']);
    large($c, $how);
    $c->exec('USE ' . setting('DATABASE') . '_other');
    equal("USE, $how", one($c, 'SELECT DATABASE()'), [setting('DATABASE') . '_other']);
    $c->exec('USE ' . setting('DATABASE'));
    $c->exec('DROP TABLE ' . TABLE);
}

function large(PDO $c, string $how): void
{
    if ((int) one($c, 'SELECT @@max_allowed_packet')[0] <= 2 * LARGE + 1024 * 1024) {
        return;
    }
    $value = large_value();
    $statement = $c->prepare('INSERT INTO ' . TABLE . " (name, big) VALUES ('large', ?)");
    $statement->bindValue(1, $value, PDO::PARAM_LOB);
    $statement->execute();
    $got = one($c, 'SELECT big FROM ' . TABLE . " WHERE name = 'large'")[0];
    equal("20 MB there and back, $how", $got === $value, true);
}

function several(): void
{
    $c = connect(true);
    $statement = $c->query("SELECT 1; SELECT 'two'; SELECT 3");
    $results = [];
    do {
        $results[] = texts($statement->fetch(PDO::FETCH_NUM));
    } while ($statement->nextRowset());
    equal('multi-statements', $results, [['1'], ['two'], ['3']]);
    $c->exec('DROP TABLE IF EXISTS ' . TABLE);
    $c->exec(table(TABLE));
    $path = infile();
    equal('rows loaded', $c->exec("LOAD DATA LOCAL INFILE '$path' INTO TABLE " . TABLE . ' (name, short)'), 5000);
    unlink($path);
    // Unbuffered: rows are read from the connection one by one.
    $c->setAttribute(PDO::MYSQL_ATTR_USE_BUFFERED_QUERY, false);
    $rows = 0;
    foreach ($c->query('SELECT id FROM ' . TABLE) as $_) {
        $rows++;
    }
    equal('unbuffered rows', $rows, 5000);
    $c->exec('DROP TABLE ' . TABLE);
}

exercise(true);
exercise(false);
several();
finish();
