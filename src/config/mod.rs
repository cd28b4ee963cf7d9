//! `/etc/foip.toml`: read, checked as a whole, and turned into settings that the rest may trust.
//!
//! ```text
//! text -> tree with places (reader) -> sections checked one by one (file, timing, ips, checks) -> Settings
//!                                                              \-> every problem with line, column and fix
//! ```

mod checks;
mod error;
mod file;
mod host;
mod ips;
mod reader;
mod syntax;
mod timing;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Serialize;

pub use error::{ConfigError, Problem};
#[cfg(any(test, fuzzing))]
pub(crate) use host::node_of_pem;
pub use host::{Host, Places};

use crate::core;
use crate::core::config::Api;
use crate::provider;
use crate::types::{Account, IfName, ServerName, Span};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/foip.toml";

/// Everything the file says, checked, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// What the core has to know.
    pub core: core::config::Config,
    /// How to talk to netcup.
    pub provider: ProviderSettings,
    /// How to talk to the cluster.
    pub kubernetes: KubernetesSettings,
    /// What was said about this host instead of being discovered.
    pub node: NodeSettings,
    /// The user's checks, most severe first; the core knows them by their names.
    pub checks: Vec<CheckSettings>,
    /// Where figures are shown.
    pub metrics: MetricsSettings,
    /// The service's directories.
    pub places: Places,
    /// What is allowed and yet worth a line at start, for people.
    pub warnings: Vec<String>,
}

/// How to talk to netcup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProviderSettings {
    /// Which of the two interfaces.
    pub api: Api,
    /// Base of the interface, without a slash at the end.
    pub url: String,
    /// Base of the login service (REST), without a slash at the end.
    pub auth_url: String,
    /// Certificates to trust instead of the system's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Where the refresh token is (REST).
    pub token_file: PathBuf,
    /// Where the addresses at which netcup answered are kept.
    pub addresses: PathBuf,
    /// The customer number (SOAP; required there).
    pub login_name: Option<Account>,
    /// Where the webservice password is (SOAP).
    pub password: PasswordSource,
}

/// Where SOAP's webservice password comes from. It is read when it is needed and never kept in the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PasswordSource {
    /// `password_file`.
    File(PathBuf),
    /// systemd's credential `soap-password`. A unit that cannot leave a credential out puts `absent` in it.
    Credential(PathBuf),
    /// Neither is there.
    Missing,
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Nothing says where it is.
    #[error(
        "no webservice password: put it in /etc/foip/soap-password and restart foip, or name its file with password_file"
    )]
    Missing,
    /// Its file cannot be read.
    #[error("cannot read the webservice password from {path}: {source}; see password_file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has no text.
    #[error("the webservice password in {0} is empty; see password_file")]
    Empty(PathBuf),
}

impl PasswordSource {
    /// Reads the password now; the line's end is not part of it.
    ///
    /// # Errors
    /// None is given, or its file cannot be read.
    pub fn read(&self) -> Result<SecretString, PasswordError> {
        let (path, credential) = match self {
            Self::File(path) => (path, false),
            Self::Credential(path) => (path, true),
            Self::Missing => return Err(PasswordError::Missing),
        };
        let text = std::fs::read_to_string(path)
            .map_err(|source| PasswordError::Unreadable { path: path.clone(), source })?;
        match text.trim_end_matches(['\r', '\n']) {
            "absent" if credential => Err(PasswordError::Missing),
            "" => Err(PasswordError::Empty(path.clone())),
            password => Ok(SecretString::from(password)),
        }
    }
}

impl ProviderSettings {
    /// What the provider's client is built from. Reads the password where one is needed (SOAP); that there is none
    /// shows in the client's answers, which say what to do.
    pub fn options(&self) -> provider::Options {
        let password = match self.api {
            Api::Rest => None,
            Api::Soap => self.password.read().ok(),
        };
        provider::Options {
            api: self.api,
            url: Some(self.url.clone()),
            auth_url: Some(self.auth_url.clone()),
            ca_file: self.ca_file.clone(),
            token_file: self.token_file.clone(),
            addresses: Some(self.addresses.clone()),
            login_name: self.login_name.clone(),
            password,
            timeouts: provider::Timeouts::default(),
        }
    }
}

/// How to talk to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KubernetesSettings {
    /// The kubeconfig; it is re-read when it changes.
    pub kubeconfig: PathBuf,
    /// Where foip's Leases are.
    pub namespace: String,
}

/// What was said about this host instead of being discovered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeSettings {
    /// The NIC that carries the failover IPs.
    pub interface: Option<IfName>,
    /// This host's name at netcup.
    pub server: Option<ServerName>,
}

/// One `[[check]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckSettings {
    /// For people.
    pub name: String,
    /// What is tried.
    pub probe: Probe,
    /// From the start of one try to the start of the next.
    pub interval: Span,
    /// A try without result by then has failed; at most the interval.
    pub timeout: Span,
    /// So many successes in a row make a failing check pass.
    pub rise: u32,
    /// So many failures in a row make a passing check fail.
    pub fall: u32,
}

/// What a check tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A TCP connection is accepted.
    Tcp(SocketAddr),
    /// A GET over plain HTTP is answered with status 200 to 399.
    Http {
        /// Where to connect to.
        at: SocketAddr,
        /// The `Host` header: the authority as it was written.
        host: String,
        /// Path and query.
        path: String,
    },
    /// A program ends with status 0. Its first word is an absolute path; there is no shell.
    Command(Vec<String>),
}

/// Where figures are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MetricsSettings {
    /// Address of a listener for scrapes.
    pub listen: Option<SocketAddr>,
    /// File for the node exporter's textfile collector.
    pub textfile: Option<PathBuf>,
}

impl Settings {
    /// Reads and checks the file at `path` on this `host`.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or says something that cannot be: all problems at once.
    pub fn load(path: &Path, host: &Host) -> Result<Self, ConfigError> {
        let text = std::fs::read(path).map_err(|error| {
            let text = unreadable(path, &error);
            ConfigError::new(path, vec![Problem { place: None, text }])
        })?;
        let text = String::from_utf8(text).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let good = String::from_utf8_lossy(&error.as_bytes()[..at]).into_owned();
            let report = reader::Report::new(&good);
            report.at(at, "this byte is not UTF-8; save the file as UTF-8");
            ConfigError::new(path, report.into_problems())
        })?;
        Self::parse(path, &text, host)
    }

    /// Checks `text`; `path` is for messages only.
    ///
    /// # Errors
    /// As for [`Settings::load`].
    pub fn parse(path: &Path, text: &str, host: &Host) -> Result<Self, ConfigError> {
        let report = reader::Report::new(text);
        let settings = file::settings(&report, text, host);
        match settings {
            Some(settings) if report.is_clean() => Ok(settings),
            Some(_) | None => Err(ConfigError::new(path, report.into_problems())),
        }
    }

    /// Every address that foip puts on a NIC.
    pub fn hosts(&self) -> impl Iterator<Item = IpAddr> {
        let groups = self.core.groups.values();
        groups.flat_map(|group| group.ips.values().flatten().copied())
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    let path = path.display();
    if error.kind() == std::io::ErrorKind::NotFound {
        "there is no such file; write one with four lines: [provider], api = \"rest\", [[failover_ip]], \
         address = \"your failover IP\" (see foip.toml(5))"
            .to_owned()
    } else if error.kind() == std::io::ErrorKind::PermissionDenied {
        format!("cannot be read by this user: {error}; run chgrp foip {path} and chmod 0640 {path}")
    } else {
        format!("cannot be read: {error}")
    }
}
