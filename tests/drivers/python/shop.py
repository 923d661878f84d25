"""The tables of sqlalchemy_orm.py."""

from sqlalchemy import JSON, Boolean, Column, DateTime, Enum, ForeignKey, Integer, LargeBinary, Numeric, String, Table, Text, func, text
from sqlalchemy.orm import declarative_base, relationship

Base = declarative_base()
OPTIONS = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}
KINDS = ["private", "trade", "straße"]

customer_tags = Table(
    "shop_customer_tag",
    Base.metadata,
    Column("customer_id", ForeignKey("shop_customer.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("shop_tag.id"), primary_key=True),
    **OPTIONS,
)


class Customer(Base):
    __tablename__ = "shop_customer"
    __table_args__ = OPTIONS
    id = Column(Integer, primary_key=True)
    name = Column(String(60), unique=True, nullable=False)
    kind = Column(Enum(*KINDS), nullable=False)
    spent = Column(Numeric(12, 2), nullable=False, server_default=text("0.00"))
    active = Column(Boolean, nullable=False, default=True)
    settings = Column(JSON, nullable=False)
    photo = Column(LargeBinary)
    version = Column(Integer, nullable=False)
    orders = relationship("Order", back_populates="customer", order_by="Order.id", cascade="all, delete-orphan")
    tags = relationship("Tag", secondary=customer_tags, order_by="Tag.name")
    __mapper_args__ = {"version_id_col": version}


class Tag(Base):
    __tablename__ = "shop_tag"
    __table_args__ = OPTIONS
    id = Column(Integer, primary_key=True)
    name = Column(String(40), unique=True, nullable=False)


class Product(Base):
    __tablename__ = "shop_product"
    __table_args__ = OPTIONS
    id = Column(Integer, primary_key=True)
    name = Column(String(60), unique=True, nullable=False)
    price = Column(Numeric(10, 2), nullable=False)
    stock = Column(Integer, nullable=False)


class Order(Base):
    __tablename__ = "shop_order"
    __table_args__ = OPTIONS
    id = Column(Integer, primary_key=True)
    customer_id = Column(ForeignKey("shop_customer.id"), nullable=False)
    placed = Column(DateTime, nullable=False, server_default=func.now())
    note = Column(Text)
    customer = relationship("Customer", back_populates="orders")
    lines = relationship("Line", back_populates="order", order_by="Line.id", cascade="all, delete-orphan")


class Line(Base):
    __tablename__ = "shop_line"
    __table_args__ = OPTIONS
    id = Column(Integer, primary_key=True)
    order_id = Column(ForeignKey("shop_order.id"), nullable=False)
    product_id = Column(ForeignKey("shop_product.id"), nullable=False)
    quantity = Column(Integer, nullable=False)
    price = Column(Numeric(10, 2), nullable=False)
    order = relationship("Order", back_populates="lines")
    product = relationship("Product")
