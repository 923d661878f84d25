"""A shop written with SQLAlchemy's ORM: threads over one engine whose pool is larger than Sidepool's.

Every thread keeps a model of what it has committed and compares it with what it reads; at the end the stock must be what
the orders leave of it. SP_DIALECT: pymysql, mysqlclient, connector, or prepared: connector again, but every statement is
prepared and executed in the binary protocol. SP_CLIENTS (20) threads do SP_ROUNDS (12) rounds each.
"""

import functools
import os
import random
import socket
import ssl
import sys
import threading
import time
import traceback
from collections import Counter
from decimal import Decimal

from checks import DATABASE, HOST, PASSWORD, PORT, TLS, USER, Checks
from shop import KINDS, Base, Customer, Line, Order, Product, Tag
from sqlalchemy import create_engine, delete, func, insert, select, text, update
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session, joinedload, selectinload
from sqlalchemy.orm.exc import StaleDataError

CLIENTS = int(os.environ.get("SP_CLIENTS", "20"))
ROUNDS = int(os.environ.get("SP_ROUNDS", "12"))
DIALECT = os.environ.get("SP_DIALECT", "pymysql")
NAME = "sqlalchemy_orm" if DIALECT == "pymysql" else f"sqlalchemy_orm-{DIALECT}"
PRODUCTS = 12
STOCK = 1_000_000
PHOTO = bytes(range(256)) * 40


# --- engines ----------------------------------------------------------------------------------------------------


def engine(**options):
    driver, arguments = {
        "pymysql": ("pymysql", pymysql_arguments),
        "mysqlclient": ("mysqldb", mysqlclient_arguments),
        "connector": ("mysqlconnector", connector_arguments),
        "prepared": ("mysqlconnector", connector_arguments),
    }[DIALECT]
    url = URL.create(f"mysql+{driver}", USER, PASSWORD, HOST, PORT, DATABASE, {"charset": "utf8mb4"})
    if DIALECT == "prepared":
        options["creator"] = preparing_connection
    return create_engine(url, connect_args=arguments(), **options)


def pymysql_arguments():
    if not TLS:
        return {"ssl_disabled": True}
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def mysqlclient_arguments():
    return {"ssl_mode": "REQUIRED" if TLS else "DISABLED"}


def connector_arguments():
    return {"use_pure": True, "ssl_disabled": not TLS}


@functools.cache
def preparing_class():
    """Connections whose every cursor prepares; what cannot be prepared (MySQL: SAVEPOINT) is sent as text."""
    from mysql.connector import Error
    from mysql.connector.connection import MySQLConnection
    from mysql.connector.cursor import MySQLCursorPrepared

    class Cursor(MySQLCursorPrepared):
        def execute(self, operation, *arguments, **options):
            try:
                return super().execute(operation, *arguments, **options)
            except Error as error:
                if error.errno != 1295:
                    raise
                self._connection.cmd_query(operation)

    class Preparing(MySQLConnection):
        def cursor(self, *_arguments, **_options):
            self.handle_unread_result()
            return Cursor(self)

    return Preparing


def preparing_connection():
    connection = preparing_class()(
        host=HOST,
        port=PORT,
        user=USER,
        password=PASSWORD,
        database=DATABASE,
        charset="utf8mb4",
        consume_results=True,
        ssl_disabled=not TLS,
    )
    # Closing a statement has no answer; without this whatever follows it waits 40 ms for an acknowledgement.
    connection._socket.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def know_the_account():
    """Without TLS mysql-connector cannot do caching_sha2_password's full exchange; one login over TLS makes the short one do."""
    if DIALECT in ("connector", "prepared") and not TLS:
        import mysql.connector

        mysql.connector.connect(host=HOST, port=PORT, user=USER, password=PASSWORD, use_pure=True).close()


# --- one thread -------------------------------------------------------------------------------------------------


class Mismatch(Exception):
    pass


def error_code(error):
    return getattr(error.orig, "errno", None) or error.orig.args[0]


def was_deadlock(error):
    """A deadlock ends the whole transaction, and with it the savepoint that is then rolled back to in vain."""
    while error is not None:
        if isinstance(error, DBAPIError) and error_code(error) == 1213:
            return True
        error = error.__context__
    return False


class Shopper:
    def __init__(self, number, engines, products):
        self.number = number
        self.engines = engines
        self.products = products
        self.dice = random.Random(number)
        self.checks = 0
        self.counts = Counter()
        self.orders = {}  # id -> sorted [(product, quantity)], as committed
        self.tags = set()
        self.spent = Decimal(0)
        self.customer = None

    def same(self, what, got, expected):
        if got != expected:
            raise Mismatch(f"{what}: expected {str(expected)[:300]}, got {str(got)[:300]}")
        self.checks += 1

    def run(self, together):
        # As many connections at once as there are threads; none of them is in a transaction yet.
        with self.engines["default"].connect():
            together.wait(120)
        self.attempt(self.sign_up)
        actions = [
            self.order, self.browse, self.tag, self.order_by_parts, self.cancel, self.edit_stale, self.report, self.import_lines,
            self.refuse,
        ]  # fmt: skip
        for round_number in range(ROUNDS):
            self.attempt(actions[round_number] if round_number < len(actions) else self.dice.choice(actions))
            self.browse()
        self.browse()

    def attempt(self, action):
        for tries in range(50):
            try:
                return action()
            except Exception as error:
                if not was_deadlock(error):
                    raise
                self.counts["deadlocks"] += 1
                time.sleep(self.dice.random() * 0.01 * (tries + 1))
        raise Mismatch("50 deadlocks in a row")

    def name(self):
        return f"Ünïcode 😀 {self.number}"

    def sign_up(self):
        with Session(self.engines["default"]) as session, session.begin():
            customer = Customer(
                name=self.name(),
                kind=KINDS[self.number % len(KINDS)],
                settings={"number": self.number, "deep": [1, {"é": None}]},
                photo=PHOTO,
            )
            session.add(customer)
            session.flush()
            self.same("generated id", customer.id is not None and customer.id > 0, True)
            session.refresh(customer)
            self.same("default of the database", customer.spent, Decimal("0.00"))
            self.same("default of the application", customer.active, True)
            self.customer = customer.id

    def basket(self, products=None):
        chosen = self.dice.sample(products or self.products, self.dice.randint(1, 3))
        return sorted((product, self.dice.randint(1, 5)) for product in chosen)

    def place(self, session, basket):
        """What every order does: lock the products in one order, take from the stock, write the order."""
        price = {}
        for product_id, quantity in basket:
            product = session.get(Product, product_id, with_for_update=True, populate_existing=True)
            price[product_id] = product.price
            product.stock = Product.stock - quantity
        order = Order(customer_id=self.customer, note="it's 100 % \\ \"new\"\n")
        order.lines = [Line(product_id=p, quantity=q, price=price[p]) for p, q in basket]
        session.add(order)
        customer = session.get(Customer, self.customer)
        total = sum((price[p] * q for p, q in basket), Decimal(0))
        customer.spent += total
        session.flush()
        self.same("lines know their order", {line.order_id for line in order.lines}, {order.id})
        return order, total

    def order(self):
        with Session(self.engines["default"]) as session:
            basket = self.basket()
            order, total = self.place(session, basket)
            seen = session.scalar(select(func.count()).select_from(Line).where(Line.order_id == order.id))
            self.same("own lines before the commit", seen, len(basket))
            order_id = order.id
            if self.dice.random() < 0.25:
                session.rollback()
                self.same("after the rollback", session.get(Order, order_id), None)
                self.counts["rolled back"] += 1
                return
            session.commit()
        self.orders[order_id] = basket
        self.spent += total
        self.counts["orders"] += 1

    def order_by_parts(self):
        """Savepoints: one part stays, one goes, and one fails by itself."""
        with Session(self.engines["committed"], expire_on_commit=False) as session, session.begin():
            # Two orders in one transaction: those of the second are locked behind those of the first, for everybody.
            basket = self.basket(self.products[: PRODUCTS // 2])
            with session.begin_nested():
                order, total = self.place(session, basket)
            with session.begin_nested() as part:
                self.place(session, self.basket(self.products[PRODUCTS // 2 :]))
                part.rollback()
            try:
                with session.begin_nested():
                    session.add(Customer(name=self.name(), kind=KINDS[0], settings={}))
            except IntegrityError as error:
                self.same("duplicate key in a savepoint", error_code(error), 1062)
            else:
                raise Mismatch("a duplicate key was taken")
            self.same("orders before the commit", self.order_ids(session), sorted([*self.orders, order.id]))
        self.orders[order.id] = basket
        self.spent += total
        self.counts["savepoints"] += 3

    def order_ids(self, session):
        return list(session.scalars(select(Order.id).where(Order.customer_id == self.customer).order_by(Order.id)))

    def browse(self):
        """Everything that this thread has committed, lazily and eagerly, and nothing else."""
        how = self.dice.choice(("lazy", "joined", "selectin"))
        options = {
            "lazy": [],
            "joined": [joinedload(Customer.orders).joinedload(Order.lines), joinedload(Customer.tags)],
            "selectin": [selectinload(Customer.orders).selectinload(Order.lines).joinedload(Line.product), selectinload(Customer.tags)],
        }[how]
        with Session(self.engines[self.dice.choice(("default", "committed", "autocommit"))]) as session:
            query = select(Customer).where(Customer.name == self.name()).options(*options)
            customer = session.scalars(query).unique().one()
            self.same("own id", customer.id, self.customer)
            self.same(f"money spent, {how}", customer.spent, self.spent)
            got = {o.id: sorted((line.product_id, line.quantity) for line in o.lines) for o in customer.orders}
            self.same(f"orders, {how}", got, self.orders)
            self.same(f"tags, {how}", {tag.name for tag in customer.tags}, self.tags)
            self.same("settings", customer.settings, {"number": self.number, "deep": [1, {"é": None}]})
            self.same("photo", customer.photo, PHOTO)
            self.same("kind", customer.kind, KINDS[self.number % len(KINDS)])
            for order in customer.orders:
                for line in order.lines:
                    self.same("price", line.product.price, line.price)
        self.counts["browsed"] += 1

    def tag(self):
        """Get or create, as applications do it: whoever comes second finds out by an error in a savepoint."""
        name = f"tag {self.dice.randrange(8)}"
        with Session(self.engines["committed"]) as session, session.begin():
            try:
                with session.begin_nested():
                    found = Tag(name=name)
                    session.add(found)
            except IntegrityError as error:
                self.same("somebody else's tag", error_code(error), 1062)
                found = session.scalars(select(Tag).where(Tag.name == name)).one()
            customer = session.get(Customer, self.customer)
            if found not in customer.tags:
                customer.tags.append(found)
        self.tags.add(name)

    def cancel(self):
        """Deletes an order with its lines by the ORM's cascade and puts the goods back in bulk."""
        if not self.orders:
            return
        order_id = self.dice.choice(sorted(self.orders))
        with Session(self.engines["default"]) as session, session.begin():
            back = Decimal(0)
            for product_id, quantity in self.orders[order_id]:
                changed = session.execute(
                    update(Product)
                    .where(Product.id == product_id)
                    .values(stock=Product.stock + quantity)
                    .execution_options(synchronize_session=False)
                )
                self.same("rows of an update", changed.rowcount, 1)
            order = session.get(Order, order_id)
            for line in order.lines:
                back += line.price * line.quantity
            session.get(Customer, self.customer).spent -= back
            session.delete(order)
        del self.orders[order_id]
        self.spent -= back
        self.counts["cancelled"] += 1

    def edit_stale(self):
        """Two sessions after another; the first one's version of the row is then too old."""
        with Session(self.engines["default"], expire_on_commit=False) as first:
            mine = first.get(Customer, self.customer)
            first.commit()
            with Session(self.engines["default"]) as second, second.begin():
                second.get(Customer, self.customer).kind = KINDS[self.number % len(KINDS) - 1]
            with Session(self.engines["default"]) as second, second.begin():
                second.get(Customer, self.customer).kind = KINDS[self.number % len(KINDS)]
            mine.settings = {"lost": True}
            try:
                first.flush()
            except StaleDataError:
                first.rollback()
                self.checks += 1
            else:
                raise Mismatch("a stale version was written")

    def report(self):
        """Aggregates under another isolation level, a streamed result, and plain SQL."""
        with Session(self.engines["serializable"]) as session:
            count = session.scalar(select(func.count()).select_from(Order).where(Order.customer_id == self.customer))
            self.same("orders counted", count, len(self.orders))
        with Session(self.engines["default"]) as session:
            mine = select(Line.id).join(Order).where(Order.customer_id == self.customer).order_by(Line.id)
            streamed = list(session.scalars(mine.execution_options(yield_per=2)))
            self.same("lines streamed", len(streamed), sum(map(len, self.orders.values())))
            level = session.connection().get_isolation_level()
            self.same("isolation level", level, session.connection().default_isolation_level)
            row = session.execute(
                text("SELECT :number + 1 AS n, :word AS w, :nothing AS nothing"),
                {"number": self.number, "word": "50 % 'é😀'", "nothing": None},
            ).one()
            self.same("plain SQL", (row.n, row.w, row.nothing), (self.number + 1, "50 % 'é😀'", None))

    def import_lines(self):
        """Bulk inserts by the ORM and by a list of dictionaries, an upsert, a bulk delete; one order of it all stays."""
        product = self.products[self.number % len(self.products)]
        with Session(self.engines["committed"], expire_on_commit=False) as session, session.begin():
            price = session.get(Product, product, with_for_update=True).price
            order = Order(customer_id=self.customer, note="imported")
            session.add(order)
            session.flush()
            session.execute(
                insert(Line), [{"order_id": order.id, "product_id": product, "quantity": 0, "price": price}] * 40
            )
            many = [Line(order_id=order.id, product_id=product, quantity=0, price=price) for _ in range(60)]
            session.add_all(many)
            session.flush()
            self.same("ids of many rows", len({line.id for line in many}), 60)
            kept = many[7].id
            # By few ids at once: otherwise the whole table is searched while it is small, and others' lines are locked.
            others = list(session.scalars(select(Line.id).where(Line.order_id == order.id, Line.id != kept)))
            gone = sum(session.execute(delete(Line).where(Line.id.in_(others[i : i + 9]))).rowcount for i in range(0, 99, 9))
            self.same("rows deleted", (gone, len(others)), (99, 99))
            upsert = mysql_insert(Product).values(id=product, name=f"product {product}", price=price, stock=0)
            session.execute(upsert.on_duplicate_key_update(stock=Product.stock - 1))
            session.execute(update(Line).where(Line.id == kept).values(quantity=1))
            session.get(Customer, self.customer).spent += price
        self.orders[order.id] = [(product, 1)]
        self.spent += price
        self.counts["imports"] += 1

    def refuse(self):
        """Errors end nothing but their transaction."""
        with Session(self.engines["default"]) as session:
            session.add(Line(order_id=2**31 - 1, product_id=self.products[0], quantity=1, price=1))
            try:
                session.commit()
            except IntegrityError as error:
                self.same("no such order", error_code(error), 1452)
                session.rollback()
            else:
                raise Mismatch("a line without an order was taken")
            try:
                session.execute(text("SELEC 1"))
            except DBAPIError as error:
                self.same("syntax error", error_code(error), 1064)
            session.rollback()
            self.same("usable afterwards", session.scalar(text("SELECT 7")), 7)


# --- all of it --------------------------------------------------------------------------------------------------


def prepare(db):
    Base.metadata.drop_all(db)
    Base.metadata.create_all(db)
    with Session(db) as session, session.begin():
        products = [Product(name=f"product {i}", price=Decimal(i) + Decimal("0.99"), stock=STOCK) for i in range(PRODUCTS)]
        session.add_all(products)
        session.flush()
        return [product.id for product in products]


def judge(check, db, shoppers):
    sold = Counter()
    for shopper in shoppers:
        for basket in shopper.orders.values():
            for product, quantity in basket:
                sold[product] += quantity
    with Session(db) as session:
        for product in session.scalars(select(Product)):
            check.equal(f"stock of {product.name}", product.stock, STOCK - sold[product.id])
        check.equal("orders", session.scalar(select(func.count()).select_from(Order)), sum(len(s.orders) for s in shoppers))
        check.equal("customers", session.scalar(select(func.count()).select_from(Customer)), len(shoppers))
        spent = session.scalar(select(func.sum(Customer.spent)))
        check.equal("money", spent, sum((s.spent for s in shoppers), Decimal(0)))


def main():
    check = Checks(NAME)
    know_the_account()
    db = engine(pool_size=CLIENTS, max_overflow=0, pool_pre_ping=True, pool_recycle=1800)
    engines = {
        "default": db,
        "committed": db.execution_options(isolation_level="READ COMMITTED"),
        "serializable": db.execution_options(isolation_level="SERIALIZABLE"),
        "autocommit": db.execution_options(isolation_level="AUTOCOMMIT"),
    }
    products = prepare(db)
    shoppers = [Shopper(number, engines, products) for number in range(CLIENTS)]
    together = threading.Barrier(CLIENTS)
    problems = []

    def shop(shopper):
        try:
            shopper.run(together)
        except Exception as error:  # whatever it is, it is the result
            together.abort()
            last = traceback.extract_tb(error.__traceback__)[-1]
            problems.append(f"client {shopper.number}: {type(error).__name__}: {str(error)[:500]} ({last.name}, line {last.lineno})")

    threads = [threading.Thread(target=shop, args=(shopper,)) for shopper in shoppers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for problem in problems[:10]:
        print(f"FAILED {NAME}: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    judge(check, db, shoppers)
    Base.metadata.drop_all(db)
    db.dispose()
    total = sum((shopper.counts for shopper in shoppers), Counter())
    print(f"{NAME}: {CLIENTS} clients, " + ", ".join(f"{n} {what}" for what, n in sorted(total.items())))
    check.done += sum(shopper.checks for shopper in shoppers)
    check.finish()


main()
