"""A small application as many are: SQLAlchemy's connection pool, one transaction per request.

GET / counts a visit and answers with JSON. Settings come from the environment, see compose.yaml.
"""

import json
import os
import signal
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sqlalchemy import Column, DateTime, Integer, create_engine, func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, declarative_base

Base = declarative_base()


class Visit(Base):
    __tablename__ = "visit"
    id = Column(Integer, primary_key=True)
    at = Column(DateTime, server_default=func.now())


def connect():
    tls = ssl.create_default_context()
    # Sidepool made its certificate itself. Give it one of yours (listener.tls) and delete these two lines.
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    url = URL.create(
        "mysql+pymysql",
        os.environ["DATABASE_USER"],
        os.environ["DATABASE_PASSWORD"],
        os.environ["DATABASE_HOST"],
        int(os.environ.get("DATABASE_PORT", "3306")),
        os.environ["DATABASE_NAME"],
        {"charset": "utf8mb4"},
    )
    arguments = {"ssl": tls, "program_name": "compose-demo"}
    return create_engine(url, connect_args=arguments, pool_recycle=int(os.environ.get("APP_POOL_RECYCLE", "-1")))


class Handler(BaseHTTPRequestHandler):
    engine = None

    def do_GET(self):
        if self.path != "/":
            self.answer(404, {"error": "there is only /"})
            return
        try:
            with Session(self.engine) as session:
                session.add(Visit())
                session.flush()
                visits = session.scalar(select(func.count()).select_from(Visit))
                session.commit()
            self.answer(200, {"visits": visits})
        except SQLAlchemyError as error:
            # With the wrong pool_recycle this is where error 2013 shows, on the first request after a pause.
            self.answer(500, {"error": str(getattr(error, "orig", None) or error)})

    def answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    Handler.engine = connect()
    Base.metadata.create_all(Handler.engine)
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on {server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()
    Handler.engine.dispose()


if __name__ == "__main__":
    main()
