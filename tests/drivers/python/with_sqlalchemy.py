"""SQLAlchemy over PyMySQL: reflection, the ORM, its pool with reset and pre-ping."""

import ssl

from checks import DATABASE, HOST, PASSWORD, PORT, TLS, USER, Checks
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    create_engine,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, declarative_base, relationship

Base = declarative_base()


class Author(Base):
    __tablename__ = "sa_author"
    __table_args__ = {"mysql_charset": "utf8mb4"}
    id = Column(Integer, primary_key=True)
    name = Column(String(50), unique=True)
    photo = Column(LargeBinary)
    books = relationship("Book", back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "sa_book"
    __table_args__ = {"mysql_charset": "utf8mb4"}
    id = Column(Integer, primary_key=True)
    title = Column(String(100))
    author_id = Column(ForeignKey("sa_author.id"))
    author = relationship("Author", back_populates="books")


def engine(**options):
    context = None
    if TLS:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    arguments = {"ssl": context} if TLS else {"ssl_disabled": True}
    url = URL.create("mysql+pymysql", USER, PASSWORD, HOST, PORT, DATABASE, {"charset": "utf8mb4"})
    return create_engine(url, connect_args=arguments, **options)


def orm(check, db):
    with Session(db) as session:
        author = Author(name="Ursula 😀", photo=b"\xff\x00\xfe", books=[Book(title="One"), Book(title="Zwei é")])
        session.add(author)
        session.commit()
        check.true("generated key", author.id)
        check.true("generated keys of children", all(book.author_id == author.id for book in author.books))
    with Session(db) as session:
        author = session.scalars(select(Author).where(Author.name == "Ursula 😀")).one()
        check.equal("binary column", author.photo, b"\xff\x00\xfe")
        check.equal("relationship", [book.title for book in author.books], ["One", "Zwei é"])
        with session.begin_nested() as savepoint:
            session.add(Book(title="not kept", author=author))
            session.flush()
            check.equal("in a savepoint", session.scalar(select(func.count()).select_from(Book)), 3)
            savepoint.rollback()
        check.equal("after its rollback", session.scalar(select(func.count()).select_from(Book)), 2)
        session.add(Author(name="Ursula 😀"))
        try:
            session.commit()
        except IntegrityError as error:
            check.equal("duplicate key", error.orig.args[0], 1062)
            session.rollback()
        else:
            check.fail("duplicate key", "no error")
        check.equal("usable afterwards", session.scalar(text("SELECT 7")), 7)
        session.add_all(Book(title=f"Book {i}", author_id=author.id) for i in range(500))
        session.commit()
        check.equal("many rows", session.scalar(select(func.count()).select_from(Book)), 502)


def main():
    check = Checks("sqlalchemy")
    db = engine(pool_size=2, pool_pre_ping=True)
    Base.metadata.drop_all(db)
    Base.metadata.create_all(db)
    names = inspect(db).get_table_names()
    check.true("reflection", {"sa_author", "sa_book"} <= set(names), str(names))
    check.equal("foreign key", inspect(db).get_foreign_keys("sa_book")[0]["referred_table"], "sa_author")
    orm(check, db)
    for level in ("READ COMMITTED", "SERIALIZABLE", "REPEATABLE READ"):
        with db.connect().execution_options(isolation_level=level) as connection:
            check.equal("isolation level", connection.get_isolation_level(), level)
            check.equal("query under it", connection.scalar(text("SELECT 1")), 1)
    with db.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        check.equal("autocommit", connection.scalar(text("SELECT @@autocommit")), 1)
    with db.connect() as connection:
        check.equal("autocommit is off again", connection.scalar(text("SELECT @@autocommit")), 0)
        check.equal("default level is back", connection.get_isolation_level(), connection.default_isolation_level)
    with db.connect() as connection:
        streamed = connection.execution_options(stream_results=True).execute(select(Book.id).order_by(Book.id))
        check.equal("streamed rows", len(list(streamed)), 502)
    Base.metadata.drop_all(db)
    db.dispose()
    check.finish()


main()
