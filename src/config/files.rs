//! The files that settings name: secrets are read here, others are looked at.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::load::Environment;
use super::problem::Problems;
use super::{Secret, Settings, UserSettings};

/// The secrets that the settings name, as read at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Of `backend.monitor_user`; `None`: it has no password file.
    pub monitor_password: Option<Secret>,
    /// The admin API's token; `None`: none is set.
    pub admin_token: Option<Secret>,
    /// Passwords by the names of `[[auth.user]]`.
    pub users: BTreeMap<String, Secret>,
    /// Passwords by the names of `[[console.user]]`.
    pub console_users: BTreeMap<String, Secret>,
}

impl Settings {
    /// Reads every secret anew. One newline at the end of a file is not part of it.
    ///
    /// # Errors
    /// Every file or variable that is missing, unreadable or empty.
    pub fn resolve_secrets(&self, env: &Environment) -> Result<Secrets, Problems> {
        let mut problems = Problems::default();
        let mut file = |key: &str, path: Option<&Path>| {
            path.and_then(|path| noted(read_file(key, path), &mut problems))
        };
        let backend = &self.backend;
        let monitor_password = file(
            "backend.monitor_password_file",
            backend.monitor_password_file.as_deref(),
        );
        let admin_token = file("admin.token_file", self.admin.token_file.as_deref());
        let secrets = Secrets {
            monitor_password,
            admin_token,
            users: passwords("auth.user", &self.auth.user, env, &mut problems),
            console_users: passwords("console.user", &self.console.user, env, &mut problems),
        };
        problems.into_result().map(|()| secrets)
    }

    /// Whether the certificates and keys that the settings name can be opened.
    ///
    /// # Errors
    /// Every one that cannot.
    pub fn check_files(&self) -> Result<(), Problems> {
        let mut problems = Problems::default();
        let mut check = |key: String, path: Option<&Path>| {
            if let Some(path) = path
                && let Err(e) = File::open(path)
                    .and_then(|f| f.metadata())
                    .and_then(not_a_directory)
            {
                problems.push(key, format!("{} cannot be read: {e}", path.display()));
            }
        };
        for (i, listener) in self.listener.iter().enumerate() {
            check(
                format!("listener[{i}].tls.certificate"),
                listener.tls.certificate.as_deref(),
            );
            check(
                format!("listener[{i}].tls.private_key"),
                listener.tls.private_key.as_deref(),
            );
        }
        check("backend.tls.ca".to_owned(), self.backend.tls.ca.as_deref());
        problems.into_result()
    }
}

fn passwords(
    key: &str,
    users: &[UserSettings],
    env: &Environment,
    problems: &mut Problems,
) -> BTreeMap<String, Secret> {
    let read = |(i, user): (usize, &UserSettings)| {
        let secret = match (&user.password_file, &user.password_env) {
            (Some(path), _) => read_file(&format!("{key}[{i}].password_file"), path),
            (None, Some(variable)) => {
                read_variable(&format!("{key}[{i}].password_env"), variable, env)
            }
            (None, None) => return None,
        };
        noted(secret, problems).map(|secret| (user.name.clone(), secret))
    };
    users.iter().enumerate().filter_map(read).collect()
}

fn read_file(key: &str, path: &Path) -> Result<Secret, Problems> {
    let wrong = |what: String| Problems::one(key, format!("{} {what}", path.display()));
    let bytes = fs::read(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let bytes = Zeroizing::new(bytes);
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line
        .strip_suffix(b"\r")
        .filter(|_| line.len() < bytes.len())
        .unwrap_or(line);
    if line.is_empty() {
        return Err(wrong("is empty".to_owned()));
    }
    Ok(Secret::new(line))
}

fn read_variable(key: &str, variable: &str, env: &Environment) -> Result<Secret, Problems> {
    match env.get(variable) {
        Some(value) if !value.is_empty() => Ok(Secret::new(value.as_bytes())),
        Some(_) => Err(Problems::one(
            key,
            format!("the environment variable {variable} is empty"),
        )),
        None => Err(Problems::one(
            key,
            format!("the environment variable {variable} is not set"),
        )),
    }
}

fn noted<T>(result: Result<T, Problems>, problems: &mut Problems) -> Option<T> {
    result.map_err(|found| problems.0.extend(found.0)).ok()
}

fn not_a_directory(metadata: fs::Metadata) -> std::io::Result<()> {
    if metadata.is_dir() {
        Err(std::io::ErrorKind::IsADirectory.into())
    } else {
        Ok(())
    }
}
