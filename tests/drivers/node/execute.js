// mysql2's `execute`: every connection of its pool keeps the statements it has prepared. None of them may be pinned.
'use strict';
const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const mysql = require('mysql2/promise');

const { SP_HOST, SP_PORT, SP_USER, SP_PASSWORD, SP_DATABASE, SP_TLS } = process.env;
const OTHER = `${SP_DATABASE}_other`;
const CLIENTS = Number(process.env.SP_CLIENTS ?? 20);
const ROUNDS = Number(process.env.SP_ROUNDS ?? 15);
const ITEMS = 't_execute_items';
const ACCOUNTS = 't_execute_accounts';
const PLACE = 't_execute_place';
const options = {
  host: SP_HOST,
  port: Number(SP_PORT),
  user: SP_USER,
  password: SP_PASSWORD,
  database: SP_DATABASE,
  charset: 'utf8mb4',
  supportBigNumbers: true,
  dateStrings: true,
  rowsAsArray: true,
  ssl: SP_TLS === '1' ? { rejectUnauthorized: false } : undefined,
};

let checks = 0;
function equal(what, got, expected) {
  assert.deepStrictEqual(got, expected, what);
  checks += 1;
}

async function execute(c, sql, args = []) {
  const [result] = await c.execute(sql, args);
  return result;
}

async function one(c, sql, args) {
  const rows = await execute(c, sql, args);
  equal(`rows from ${sql}`, rows.length, 1);
  return rows[0];
}

const numbers = (count) => Array.from({ length: count }, (_, i) => i);

/** Runs one function per client at the same time. */
const all = (work) => Promise.all(numbers(CLIENTS).map(work));

async function prepareTables(pool) {
  for (const name of [ITEMS, ACCOUNTS, PLACE, `${OTHER}.${PLACE}`]) {
    await execute(pool, `DROP TABLE IF EXISTS ${name}`);
  }
  await execute(
    pool,
    `CREATE TABLE ${ITEMS} (id BIGINT AUTO_INCREMENT PRIMARY KEY, owner INT, name VARCHAR(60), big LONGBLOB, KEY (owner)) CHARACTER SET utf8mb4`,
  );
  await execute(pool, `CREATE TABLE ${ACCOUNTS} (id INT PRIMARY KEY, amount BIGINT)`);
  await execute(pool, `CREATE TABLE ${PLACE} (place VARCHAR(10)) CHARACTER SET utf8mb4`);
  await execute(pool, `CREATE TABLE ${OTHER}.${PLACE} (place VARCHAR(10)) CHARACTER SET utf8mb4`);
  await execute(pool, `INSERT INTO ${PLACE} VALUES (?)`, ['here']);
  await execute(pool, `INSERT INTO ${OTHER}.${PLACE} VALUES (?)`, ['there']);
  await Promise.all(numbers(CLIENTS).map((i) => execute(pool, `INSERT INTO ${ACCOUNTS} VALUES (?, ?)`, [i, 0])));
}

/** All of the pool's connections at once, each with a statement of its own. */
async function held(pool) {
  const connections = await all(() => pool.getConnection());
  const statements = await Promise.all(connections.map((c, i) => c.prepare(`SELECT CONCAT('${i}/', ?), CAST(? AS SIGNED) + ${i}`)));
  for (const n of numbers(ROUNDS)) {
    await Promise.all(
      statements.map(async (statement, i) => {
        const [rows] = await statement.execute([`é😀${n}`, n]);
        equal('held statement', [rows[0][0], Number(rows[0][1])], [`${i}/é😀${n}`, i + n]);
      }),
    );
  }
  await Promise.all(statements.map((statement) => statement.close()));
  connections.forEach((c) => c.release());
}

async function values(pool) {
  await all(async (i) => {
    for (const n of numbers(ROUNDS)) {
      const text = 'ü'.repeat(((i + 1) * (n + 1) * 7) % 400);
      const bytes = crypto.randomBytes(((i + 3) * n * 31) % 9000);
      const row = await one(pool, "SELECT CONCAT(?, ''), CAST(? AS BINARY), ? IS NULL, CAST(? AS CHAR)", [text, bytes, null, i * 1000 + n]);
      equal('values', [row[0], bytes.equals(row[1]), Number(row[2]), Number(row[3])], [text, true, 1, i * 1000 + n]);
    }
  });
}

async function items(pool) {
  await all(async (i) => {
    for (const n of numbers(ROUNDS)) {
      const big = crypto.randomBytes(n * 2000);
      const { insertId, affectedRows } = await execute(pool, `INSERT INTO ${ITEMS} (owner, name, big) VALUES (?, ?, ?)`, [i, `item ${n} 😀`, big]);
      equal('one row', affectedRows, 1);
      const row = await one(pool, `SELECT owner, name, big FROM ${ITEMS} WHERE id = ?`, [insertId]);
      equal('the row of that id', [row[0], row[1], big.equals(row[2])], [i, `item ${n} 😀`, true]);
    }
    const names = await execute(pool, `SELECT name FROM ${ITEMS} WHERE owner = ? ORDER BY id`, [i]);
    equal('own rows', names.map((row) => row[0]), numbers(ROUNDS).map((n) => `item ${n} 😀`));
    const { affectedRows } = await execute(pool, `DELETE FROM ${ITEMS} WHERE owner = ? AND name <> ?`, [i, 'item 0 😀']);
    equal('deleted rows', affectedRows, ROUNDS - 1);
  });
}

async function transactions(pool) {
  await all(async (i) => {
    for (const n of numbers(ROUNDS)) {
      const c = await pool.getConnection();
      await c.beginTransaction();
      const before = await one(c, `SELECT amount FROM ${ACCOUNTS} WHERE id = ? FOR UPDATE`, [i]);
      await execute(c, `UPDATE ${ACCOUNTS} SET amount = amount + ? WHERE id = ?`, [1, i]);
      equal('own change', await one(c, `SELECT amount FROM ${ACCOUNTS} WHERE id = ?`, [i]), [before[0] + 1]);
      await (n % 3 === 0 ? c.rollback() : c.commit());
      c.release();
    }
  });
  const kept = numbers(ROUNDS).filter((n) => n % 3 !== 0).length;
  const rows = await execute(pool, `SELECT amount FROM ${ACCOUNTS} WHERE id >= ? ORDER BY id`, [0]);
  equal('amounts', rows, numbers(CLIENTS).map(() => [kept]));
}

/** What was prepared in one database stays there; connections go back to the pool as they were. */
async function databases(pool) {
  await all(async () => {
    const c = await pool.getConnection();
    const here = await c.prepare(`SELECT place, DATABASE() FROM ${PLACE} WHERE CAST(? AS SIGNED) = 1`);
    for (const database of [OTHER, SP_DATABASE, OTHER, SP_DATABASE]) {
      await c.query(`USE ${database}`);
      const [rows] = await here.execute([1]);
      equal('a kept statement', rows, [['here', SP_DATABASE]]);
    }
    await here.close();
    await c.query("SET time_zone = '+05:00'");
    equal('time zone', (await one(c, 'SELECT CAST(FROM_UNIXTIME(?) AS CHAR)', [0]))[0].slice(0, 19), '1970-01-01 05:00:00');
    await c.query("SET time_zone = '+00:00'");
    equal('time zone, the same statement', (await one(c, 'SELECT CAST(FROM_UNIXTIME(?) AS CHAR)', [0]))[0].slice(0, 19), '1970-01-01 00:00:00');
    c.release();
  });
}

async function errors(pool) {
  const number = (promise) => promise.then(() => 0, (error) => error.errno);
  await all(async (i) => {
    equal('duplicate key', await number(pool.execute(`INSERT INTO ${ACCOUNTS} VALUES (?, ?)`, [i, 1])), 1062);
    equal('syntax error', await number(pool.execute('SELEC ?', [1])), 1064);
    equal('unknown table', await number(pool.execute('SELECT 1 FROM t_execute_gone WHERE a = ?', [1])), 1146);
    equal('afterwards', Number((await one(pool, 'SELECT CAST(? AS SIGNED)', [i]))[0]), i);
  });
}

/** More statements than the driver keeps: the oldest are closed. */
async function manyStatements() {
  const c = await mysql.createConnection({ ...options, maxPreparedStatements: 10 });
  for (const n of numbers(60)) {
    equal('many statements', Number((await one(c, `SELECT CAST(? AS SIGNED) + ${n % 25}`, [n]))[0]), n + (n % 25));
  }
  await c.reset();
  equal('after a reset', Number((await one(c, 'SELECT CAST(? AS SIGNED) + 1', [1]))[0]), 2);
  await c.end();
}

async function main() {
  const pool = mysql.createPool({ ...options, connectionLimit: CLIENTS });
  await prepareTables(pool);
  for (const part of [held, values, items, transactions, databases, errors]) {
    await part(pool);
  }
  await manyStatements();
  await pool.end();
  console.log(`ok mysql2-execute: ${checks} checks`);
}

main().catch((error) => {
  console.error(`FAILED mysql2-execute: ${String(error.stack).slice(0, 3000)}`);
  process.exit(1);
});
