//! The configuration file.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::failure::{Failure, Outcome};

/// The file, in place of the one of the user.
const FILE_VARIABLE: &str = "AMQP_CONFIG";

/// The settings of a connection, in a file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table, such as [default]"
)]
pub(crate) struct Settings {
    pub(crate) url: Option<String>,
    pub(crate) vhost: Option<String>,
    pub(crate) authfile: Option<PathBuf>,
    pub(crate) cacert: Option<String>,
    pub(crate) cert: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) heartbeat: Option<u16>,
}

/// The table without a `--profile`.
const DEFAULT: &str = "default";

/// Reads the settings of a profile, or the table `default`. A missing file is an empty one, unless a
/// profile or the file was named.
pub(crate) fn read(profile: Option<&str>) -> Outcome<Settings> {
    let named = env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty());
    let named = named.map(PathBuf::from);
    let Some(path) = named.clone().or_else(of_user) else {
        return missing(profile, "there is no folder for it");
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
            return missing(profile, path.display());
        }
        Err(error) => {
            let path = path.display();
            return Err(Failure::usage(format_args!("cannot read {path}: {error}")));
        }
    };
    let mut file = parse(&path, &text)?;
    let Some(profile) = profile else {
        return Ok(file.remove(DEFAULT).unwrap_or_default());
    };
    file.remove(profile).ok_or_else(|| {
        let path = path.display();
        Failure::usage(format_args!("{path} has no profile [{profile}]"))
    })
}

fn parse(path: &Path, text: &str) -> Outcome<BTreeMap<String, Settings>> {
    toml::from_str(text).map_err(|error| {
        // Without the line, which may have a password.
        let before = error.span().and_then(|span| text.get(..span.start));
        let place = 1 + before.unwrap_or_default().matches('\n').count();
        let (path, reason) = (path.display(), without_value(error.message()));
        Failure::usage(format_args!("{path}, line {place}: {reason}"))
    })
}

/// Leaves the value out that an error of serde quotes, which may be a URL with its password.
fn without_value(message: &str) -> String {
    match message.rsplit_once(", expected ") {
        Some((quoted, expected)) if quoted.starts_with("invalid ") => {
            format!("expected {expected}")
        }
        _ => message.to_owned(),
    }
}

fn missing(profile: Option<&str>, place: impl std::fmt::Display) -> Outcome<Settings> {
    match profile {
        None => Ok(Settings::default()),
        Some(profile) => Err(Failure::usage(format_args!(
            "there is no profile [{profile}], for there is no configuration file: {place}"
        ))),
    }
}

/// The file of the user: that of the XDG base directories, or in `%APPDATA%`.
fn of_user() -> Option<PathBuf> {
    let folder = |variable: &str| {
        let folder = PathBuf::from(env::var_os(variable)?);
        folder.is_absolute().then_some(folder)
    };
    let base = if cfg!(windows) {
        folder("APPDATA")?
    } else {
        folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?
    };
    Some(base.join("amqp").join("config.toml"))
}
