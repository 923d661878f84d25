//! The program: arguments, settings, logging, runtime, server, exit code; nothing else.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use sidepool::cli::{self, Invocation, Outcome};
use sidepool::config::{Environment, ServerSettings};
use sidepool::logging::Logging;
use sidepool::server::{Server, Startup};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let environment = Environment::of_process();
    match cli::parse() {
        Invocation::Run { config } => run(config, environment),
        Invocation::Check { config } => cli::check(config.as_deref(), &environment).finish(),
        Invocation::Version => cli::version().finish(),
    }
}

fn run(config: Option<PathBuf>, environment: Environment) -> ExitCode {
    let settings = match cli::load(config.as_deref(), &environment) {
        Ok(settings) => settings,
        Err(refusal) => return refusal.finish(),
    };
    let secrets = match settings.resolve_secrets(&environment) {
        Ok(secrets) => secrets,
        Err(problems) => return Outcome::refusal(&problems).finish(),
    };
    let logging = Logging::start(&settings.log);
    let runtime = match runtime(&settings.server) {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("the runtime cannot be started: {error}"), 1),
    };
    let startup = Startup {
        settings,
        secrets,
        environment,
        config,
        logging,
    };
    let code = runtime.block_on(async {
        match Server::build(startup).await {
            Ok(server) => server.run().await,
            Err(error) => failure(&error.to_string(), error.exit_code()),
        }
    });
    // Whatever still runs was told to end and did not.
    runtime.shutdown_background();
    code
}

fn runtime(settings: &ServerSettings) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if settings.worker_threads > 0 {
        builder.worker_threads(settings.worker_threads);
    }
    builder.thread_name("sidepool").enable_all().build()
}

fn failure(message: &str, code: u8) -> ExitCode {
    let stderr = format!("sidepool: {message}\n");
    let stdout = String::new();
    Outcome {
        stdout,
        stderr,
        code,
    }
    .finish()
}
