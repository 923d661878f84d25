// mysql2: text protocol (query), binary protocol (execute), and its own pool.
'use strict';
const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { Readable } = require('node:stream');
const mysql = require('mysql2/promise');

const { SP_HOST, SP_PORT, SP_USER, SP_PASSWORD, SP_DATABASE, SP_TLS } = process.env;
const OTHER = `${SP_DATABASE}_other`;
const TABLE = 't_mysql2';
const MB = 1024 * 1024;
const options = {
  host: SP_HOST,
  port: Number(SP_PORT),
  user: SP_USER,
  password: SP_PASSWORD,
  database: SP_DATABASE,
  charset: 'utf8mb4',
  supportBigNumbers: true,
  dateStrings: true,
  ssl: SP_TLS === '1' ? { rejectUnauthorized: false } : undefined,
};

let checks = 0;
function equal(what, got, expected) {
  assert.deepStrictEqual(got, expected, what);
  checks += 1;
}

async function one(connection, sql, args, method = 'query') {
  const [rows] = await connection[method]({ sql, rowsAsArray: true }, args);
  return rows[0].length === 1 ? rows[0][0] : rows[0];
}

async function rejects(what, promise, errno) {
  const error = await promise.then(() => undefined, (e) => e);
  equal(what, error?.errno, errno);
}

const TYPES =
  "SELECT 1, CAST(-9223372036854775808 AS SIGNED), 18446744073709551615, CAST('12345.678901' AS DECIMAL(20,6)), 1.5e0," +
  " CAST(x'ff00fe' AS BINARY(3)), NULL, 'h\u00e9llo', '\u{1f600}\u65e5\u672c', '', CAST('2024-02-29' AS DATE)," +
  " CAST('2024-02-29 12:34:56.123456' AS DATETIME(6)), CAST('-12:34:56' AS TIME)";
const EXPECTED = [
  1, '-9223372036854775808', '18446744073709551615', '12345.678901', 1.5, Buffer.from('ff00fe', 'hex'), null,
  'h\u00e9llo', '\u{1f600}\u65e5\u672c', '', '2024-02-29', '2024-02-29 12:34:56.123456', '-12:34:56',
];

async function rowsAndTypes(c) {
  equal('types, text', await one(c, TYPES), EXPECTED);
  equal('types, binary', await one(c, TYPES, [], 'execute'), EXPECTED);
  const parameters = ['it\'s \u{1f600} \\', null, 42, Buffer.from('ff00fe', 'hex')];
  equal('parameters', await one(c, 'SELECT CAST(? AS CHAR), ?, CAST(? AS SIGNED), CAST(? AS BINARY(3))', parameters, 'execute'), parameters);
  for (let i = 0; i < 5; i += 1) {
    equal('one statement, many executions', Number(await one(c, 'SELECT CAST(? AS SIGNED) + 1', [i], 'execute')), i + 1);
  }
}

async function changes(c) {
  const [inserted] = await c.query(`INSERT INTO ${TABLE} (name) VALUES ('a'), ('b'), ('c')`);
  equal('affected rows', inserted.affectedRows, 3);
  equal('LAST_INSERT_ID()', await one(c, 'SELECT LAST_INSERT_ID()'), inserted.insertId);
  const [executed] = await c.execute(`INSERT INTO ${TABLE} (name) VALUES (?)`, ['d']);
  equal('insert id of a prepared statement', await one(c, `SELECT id FROM ${TABLE} WHERE name = 'd'`), executed.insertId);
  await c.beginTransaction();
  await c.execute(`INSERT INTO ${TABLE} (name) VALUES (?)`, ['rolled back']);
  equal('inside a transaction', await one(c, `SELECT COUNT(*) FROM ${TABLE}`), 5);
  await c.rollback();
  equal('after rollback', await one(c, `SELECT COUNT(*) FROM ${TABLE}`), 4);
  await c.beginTransaction();
  await c.execute(`INSERT INTO ${TABLE} (name) VALUES (?)`, ['committed']);
  await c.commit();
  equal('after commit', await one(c, `SELECT COUNT(*) FROM ${TABLE}`), 5);
  await rejects('duplicate key, text', c.query(`INSERT INTO ${TABLE} (name) VALUES ('a')`), 1062);
  await rejects('duplicate key, binary', c.execute(`INSERT INTO ${TABLE} (name) VALUES (?)`, ['a']), 1062);
  await rejects('syntax error in prepare', c.execute('SELEC ?', [1]), 1064);
  equal('usable after errors', await one(c, 'SELECT 7'), 7);
}

async function session(c) {
  await c.query("SET sql_mode = ''");
  const [result] = await c.query(`INSERT INTO ${TABLE} (name, short) VALUES ('w', 'abcdefghij')`);
  equal('warning count', result.warningStatus, 1);
  const [warnings] = await c.query('SHOW WARNINGS');
  equal('warnings', warnings.map((w) => [w.Level, w.Code]), [['Warning', 1265]]);
  await c.query("SET time_zone = '+03:00', sql_mode = 'ANSI_QUOTES'");
  equal('time zone', await one(c, 'SELECT @@time_zone, FROM_UNIXTIME(0)'), ['+03:00', '1970-01-01 03:00:00']);
  equal('sql_mode, binary', await one(c, `SELECT "name" FROM "${TABLE}" WHERE id = ?`, [1], 'execute'), 'a');
  await c.query('SET @a = 5');
  equal('user variable', Number(await one(c, 'SELECT @a')), 5);
  await c.query('CREATE TEMPORARY TABLE tmp_x (a INT)');
  equal('temporary table', await one(c, 'SELECT COUNT(*) FROM tmp_x', [], 'execute'), 0);
  await c.query(`USE ${OTHER}`);
  equal('USE', await one(c, 'SELECT DATABASE()'), OTHER);
  await c.changeUser({ user: SP_USER, password: SP_PASSWORD, database: SP_DATABASE });
  equal('change user', await one(c, 'SELECT DATABASE(), @a'), [SP_DATABASE, null]);
  equal('prepared after change user', Number(await one(c, 'SELECT CAST(? AS SIGNED) + 1', [1], 'execute')), 2);
  await c.ping();
  equal('after ping', await one(c, 'SELECT 9'), 9);
}

async function multi() {
  const c = await mysql.createConnection({ ...options, multipleStatements: true });
  const [results] = await c.query({ sql: "SELECT 1; SELECT 'two'; SET @m = 3; SELECT @m", rowsAsArray: true });
  equal('multi-statements', [results[0], results[1], Number(results[3][0][0])], [[[1]], [['two']], 3]);
  await c.end();
}

async function infile(c) {
  const data = Array.from({ length: 5000 }, (_, i) => `row ${i}\tabc\n`).join('');
  const [loaded] = await c.query({
    sql: `LOAD DATA LOCAL INFILE 'stream' INTO TABLE ${TABLE} (name, short)`,
    infileStreamFactory: () => Readable.from([Buffer.from(data)]),
  });
  equal('rows loaded', loaded.affectedRows, 5000);
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'sidepool-')), 'x.tsv');
  fs.writeFileSync(file, 'from a file\tabc\n');
  const [again] = await c.query({
    sql: `LOAD DATA LOCAL INFILE '${file}' INTO TABLE ${TABLE} (name, short)`,
    infileStreamFactory: (name) => fs.createReadStream(name),
  });
  equal('rows loaded from a file', again.affectedRows, 1);
  fs.rmSync(path.dirname(file), { recursive: true });
}

async function large(c) {
  if (Number(await one(c, 'SELECT @@max_allowed_packet')) < 24 * MB) return;
  const value = crypto.randomBytes(20 * MB);
  await c.execute(`INSERT INTO ${TABLE} (name, big) VALUES ('large', ?)`, [value]);
  const got = await one(c, `SELECT big FROM ${TABLE} WHERE name = ?`, ['large'], 'execute');
  equal('20 MB there and back, binary', value.equals(got), true);
  equal('20 MB back, text', value.equals(await one(c, `SELECT big FROM ${TABLE} WHERE name = 'large'`)), true);
}

async function pool(settings, method) {
  const p = mysql.createPool({ ...options, ...settings });
  const answers = await Promise.all(Array.from({ length: 200 }, (_, i) => one(p, 'SELECT CAST(? AS SIGNED), DATABASE()', [i], method)));
  answers.forEach((answer, i) => equal('through a pool', [Number(answer[0]), answer[1]], [i, SP_DATABASE]));
  await p.end();
}

async function main() {
  const c = await mysql.createConnection(options);
  equal('TLS', Boolean(c.connection.stream.encrypted), SP_TLS === '1');
  await c.query(`DROP TABLE IF EXISTS ${TABLE}`);
  await c.query(
    `CREATE TABLE ${TABLE} (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) UNIQUE, short VARCHAR(5), big LONGBLOB) CHARACTER SET utf8mb4`,
  );
  await rowsAndTypes(c);
  await changes(c);
  await session(c);
  await multi();
  await infile(c);
  await large(c);
  await c.reset();
  equal('reset', await one(c, 'SELECT DATABASE()'), SP_DATABASE);
  await pool({ connectionLimit: 20 }, 'query');
  // A client keeps its prepared statements, and with them a connection of Sidepool's, until it is closed or reset.
  await pool({ connectionLimit: 4 }, 'execute');
  await pool({ connectionLimit: 10, resetOnRelease: true }, 'execute');
  await c.query(`DROP TABLE ${TABLE}`);
  await c.end();
  console.log(`ok mysql2: ${checks} checks`);
}

main().catch((error) => {
  console.error(`FAILED mysql2: ${String(error.stack).slice(0, 3000)}`);
  process.exit(1);
});
