//! The command line: `sidepool [--config FILE] [run|check|version]`.
//!
//! Commands that only say something return an [`Outcome`]; its `finish` is the one place that prints.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Environment, Problems, Settings};

/// `EX_USAGE` of sysexits.h: the settings are wrong, so starting again will not help.
pub const EXIT_USAGE: u8 = 64;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Run the proxy.
    Run {
        /// `--config`.
        config: Option<PathBuf>,
    },
    /// Say whether the settings are valid, and what they are.
    Check {
        /// `--config`.
        config: Option<PathBuf>,
    },
    /// Say which version this is.
    Version,
}

/// What a command says, and how the process ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output.
    pub stdout: String,
    /// For standard error.
    pub stderr: String,
    /// The exit code.
    pub code: u8,
}

#[derive(Debug, Parser)]
#[command(
    name = "sidepool",
    version,
    about = "Connection proxy for MySQL and MariaDB"
)]
struct Arguments {
    /// TOML file with settings [default: /etc/sidepool/sidepool.toml where it exists].
    /// Environment variables SIDEPOOL_SECTION__KEY override it.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Command {
    /// Run the proxy (the default)
    Run,
    /// Validate the settings and print them as they take effect
    Check,
    /// Print name and version
    Version,
}

/// Reads this process's arguments. Wrong ones, `--help` and `--version` end the process.
pub fn parse() -> Invocation {
    Arguments::parse().into()
}

/// Loads the settings to run with.
///
/// # Errors
/// What to say instead of running.
pub fn load(config: Option<&Path>, env: &Environment) -> Result<Settings, Outcome> {
    config::load(config, env).map_err(|problems| Outcome::refusal(&problems))
}

/// `check`: the effective settings as TOML on standard output, warnings on standard error; or, one
/// line each on standard error, what is wrong. The files that the settings name are looked at too.
pub fn check(config: Option<&Path>, env: &Environment) -> Outcome {
    let settings = match load(config, env) {
        Ok(settings) => settings,
        Err(refusal) => return refusal,
    };
    let mut problems = Vec::new();
    problems.extend(settings.check_files().err().unwrap_or_default().0);
    problems.extend(settings.resolve_secrets(env).err().unwrap_or_default().0);
    if !problems.is_empty() {
        return Outcome::refusal(&Problems(problems));
    }
    let warnings = settings.warnings();
    Outcome {
        stdout: settings.to_toml(),
        stderr: warnings
            .iter()
            .map(|warning| format!("warning: {warning}\n"))
            .collect(),
        code: 0,
    }
}

/// `version`: name and version.
pub fn version() -> Outcome {
    Outcome {
        stdout: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"), "\n").to_owned(),
        ..Outcome::default()
    }
}

impl Outcome {
    /// Says that the settings are refused, and why: one line per problem.
    pub fn refusal(problems: &Problems) -> Self {
        Self {
            stderr: format!("{problems}\n"),
            code: EXIT_USAGE,
            ..Self::default()
        }
    }

    /// Prints both texts and gives the exit code. Output that nobody reads any more is no failure.
    pub fn finish(self) -> ExitCode {
        // Warnings last, so that on a terminal they stand below the page of settings.
        let mut stdout = io::stdout();
        let _ = stdout
            .write_all(self.stdout.as_bytes())
            .and_then(|()| stdout.flush());
        let _ = io::stderr().write_all(self.stderr.as_bytes());
        ExitCode::from(self.code)
    }
}

impl From<Arguments> for Invocation {
    fn from(arguments: Arguments) -> Self {
        let config = arguments.config;
        match arguments.command {
            None | Some(Command::Run) => Self::Run { config },
            Some(Command::Check) => Self::Check { config },
            Some(Command::Version) => Self::Version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let config = || Some(PathBuf::from("x.toml"));
        for (line, invocation) in [
            ("sidepool", Some(Invocation::Run { config: None })),
            (
                "sidepool --config x.toml",
                Some(Invocation::Run { config: config() }),
            ),
            (
                "sidepool run --config=x.toml",
                Some(Invocation::Run { config: config() }),
            ),
            (
                "sidepool --config x.toml check",
                Some(Invocation::Check { config: config() }),
            ),
            (
                "sidepool check --config x.toml",
                Some(Invocation::Check { config: config() }),
            ),
            ("sidepool version", Some(Invocation::Version)),
            ("sidepool --config", None),
            ("sidepool fly", None),
            ("sidepool check extra", None),
        ] {
            let parsed = Arguments::try_parse_from(line.split(' '))
                .ok()
                .map(Invocation::from);
            assert_eq!(parsed, invocation, "{line}");
        }
    }

    #[test]
    fn check_prints_settings_that_load_again_and_warnings_apart() {
        let env: Environment = [("SIDEPOOL_BACKEND__ADDRESSES", "db:3306")]
            .into_iter()
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sidepool.toml");
        std::fs::write(&file, "[log]\nformat = \"json\"\n").unwrap();
        let outcome = check(Some(&file), &env);
        assert_eq!(outcome.code, 0);
        assert!(
            outcome
                .stderr
                .lines()
                .all(|line| line.starts_with("warning: ")),
            "{}",
            outcome.stderr
        );
        assert!(outcome.stderr.contains("auth.allow"));

        std::fs::write(&file, &outcome.stdout).unwrap();
        let again = check(Some(&file), &Environment::default());
        assert_eq!(again, outcome);
    }

    #[test]
    fn check_says_one_line_per_problem_and_ends_with_64() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sidepool.toml");
        std::fs::write(&file, "[log]\nlevel = 5\n[pool]\nmin_idel = 1\n").unwrap();
        let outcome = check(Some(&file), &Environment::default());
        assert_eq!(outcome.code, EXIT_USAGE);
        assert_eq!(outcome.stdout, "");
        assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.stderr);
    }

    #[test]
    fn check_looks_at_the_files_that_are_named() {
        let env: Environment = [
            ("SIDEPOOL_BACKEND__ADDRESSES", "db:3306"),
            ("SIDEPOOL_BACKEND__TLS__CA", "/nonexistent/ca.pem"),
            ("SIDEPOOL_ADMIN__TOKEN_FILE", "/nonexistent/token"),
        ]
        .into_iter()
        .collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("empty.toml");
        std::fs::write(&file, "").unwrap();
        let outcome = check(Some(&file), &env);
        assert_eq!(outcome.code, EXIT_USAGE);
        assert!(
            outcome
                .stderr
                .contains("backend.tls.ca: /nonexistent/ca.pem cannot be read")
        );
        assert!(
            outcome
                .stderr
                .contains("admin.token_file: /nonexistent/token cannot be read")
        );
    }

    #[test]
    fn the_version_is_that_of_the_package() {
        assert_eq!(
            version().stdout,
            format!("sidepool {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
}
