//! The routes: what each answers, and what a request must be to get there.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    HeaderName, HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tracing::error;

use super::guard::{self, Refusal};
use super::{AdminContext, Scope};
use crate::metrics::TEXT_FORMAT;

pub(super) type Reply = Response<Full<Bytes>>;

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// One path. All of them are read with GET or HEAD.
struct Route {
    path: &'static str,
    /// The narrowest scope that serves it.
    scope: Scope,
    access: Access,
    about: &'static str,
    answer: fn(&AdminContext) -> Reply,
}

/// Who may read a route.
#[derive(PartialEq, Eq)]
enum Access {
    Everybody,
    /// [`guard::admit`] decides.
    Guarded,
}

const ROUTES: &[Route] = &[
    Route {
        path: "/",
        scope: Scope::Full,
        access: Access::Everybody,
        about: "this page",
        answer: index,
    },
    Route {
        path: "/metrics",
        scope: Scope::MetricsOnly,
        access: Access::Everybody,
        about: "metrics in Prometheus's text format",
        answer: metrics,
    },
    Route {
        path: "/live",
        scope: Scope::MetricsOnly,
        access: Access::Everybody,
        about: "200 while the process serves",
        answer: |_| reply(StatusCode::OK, PLAIN, "ok\n"),
    },
    Route {
        path: "/ready",
        scope: Scope::MetricsOnly,
        access: Access::Everybody,
        about: "200 while new clients are welcome, else 503 and why not",
        answer: ready,
    },
    Route {
        path: "/api/v1/clients",
        scope: Scope::Full,
        access: Access::Guarded,
        about: "logged-in clients",
        answer: |ctx| json_reply(&json!({ "clients": ctx.sources.clients() })),
    },
    Route {
        path: "/api/v1/pools",
        scope: Scope::Full,
        access: Access::Everybody,
        about: "pools of backend connections by backend and account",
        answer: |ctx| json_reply(&json!({ "pools": ctx.sources.pools() })),
    },
    Route {
        path: "/api/v1/backends",
        scope: Scope::Full,
        access: Access::Everybody,
        about: "database servers and what is known of them",
        answer: |ctx| json_reply(&json!({ "backends": ctx.sources.backends() })),
    },
    Route {
        path: "/api/v1/settings",
        scope: Scope::Full,
        access: Access::Guarded,
        about: "effective settings, secrets masked",
        answer: |ctx| json_reply(&json!({ "settings": ctx.sources.settings() })),
    },
];

/// Answers one request; `local` is the address that its listener is bound to.
pub(super) async fn answer<B: Body>(
    request: Request<B>,
    ctx: Arc<AdminContext>,
    scope: Scope,
    local: IpAddr,
) -> Reply {
    let path = request.uri().path();
    let Some(route) = ROUTES
        .iter()
        .find(|r| r.path == path && (scope == Scope::Full || r.scope == scope))
    else {
        return failure(StatusCode::NOT_FOUND, "no such path");
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refused = failure(
            StatusCode::METHOD_NOT_ALLOWED,
            "this path is read with GET or HEAD",
        );
        return with(refused, ALLOW, ALLOWED);
    }
    if !request.body().is_end_stream() {
        // The body is not read, so nothing after it on this connection could be understood.
        let refused = failure(StatusCode::PAYLOAD_TOO_LARGE, "this path takes no body");
        return with(refused, CONNECTION, HeaderValue::from_static("close"));
    }
    if route.access == Access::Guarded
        && let Err(refusal) = guard::admit(ctx.token.as_ref(), local, request.headers())
    {
        return refused(refusal);
    }
    // Copying and writing out ten thousand clients takes milliseconds that no relay shall wait for.
    match tokio::task::spawn_blocking(move || (route.answer)(&ctx)).await {
        Ok(reply) => reply,
        Err(err) => {
            error!(path = route.path, error = %err, "admin route failed");
            failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "this is a defect; see the log",
            )
        }
    }
}

fn metrics(ctx: &AdminContext) -> Reply {
    match ctx.metrics.encode() {
        Ok(text) => reply(StatusCode::OK, TEXT_FORMAT, text),
        Err(err) => {
            error!(error = %err, "metrics not encoded");
            failure(StatusCode::INTERNAL_SERVER_ERROR, &err.to_string())
        }
    }
}

fn ready(ctx: &AdminContext) -> Reply {
    match ctx.readiness.check() {
        Ok(()) => reply(StatusCode::OK, PLAIN, "ok\n"),
        Err(not_ready) => reply(
            StatusCode::SERVICE_UNAVAILABLE,
            PLAIN,
            format!("{not_ready}\n"),
        ),
    }
}

/// A page without scripts or outside requests that names the other paths.
fn index(_: &AdminContext) -> Reply {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sidepool</title>\
         <style>body{font:1rem/1.6 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}\
         dt{font-family:monospace}</style>",
    );
    let _ = write!(page, "<h1>Sidepool {}</h1><dl>", env!("CARGO_PKG_VERSION"));
    for Route {
        path,
        about,
        access,
        ..
    } in ROUTES
    {
        let token = if *access == Access::Guarded {
            " (token)"
        } else {
            ""
        };
        let _ = write!(page, "<dt><a href=\"{path}\">{path}</a><dd>{about}{token}");
    }
    page.push_str("</dl></html>\n");
    with(
        reply(StatusCode::OK, HTML, page),
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    )
}

fn refused(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::Unauthorized => with(
            failure(StatusCode::UNAUTHORIZED, &refusal.to_string()),
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"sidepool\""),
        ),
        Refusal::NotLoopback | Refusal::ForeignHost => {
            failure(StatusCode::FORBIDDEN, &refusal.to_string())
        }
    }
}

fn failure(status: StatusCode, message: &str) -> Reply {
    reply(status, JSON, format!("{}\n", json!({ "error": message })))
}

fn json_reply(value: &serde_json::Value) -> Reply {
    reply(StatusCode::OK, JSON, format!("{value}\n"))
}

/// A whole reply. Its length is set here because the answer to HEAD tells it without a body.
fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let body = body.into();
    let length = HeaderValue::from(body.len());
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

fn with(mut reply: Reply, name: HeaderName, value: HeaderValue) -> Reply {
    reply.headers_mut().insert(name, value);
    reply
}
