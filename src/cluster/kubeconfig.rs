//! The kubeconfig: read whole, checked whole, and only then used.
//!
//! k3s truncates and rewrites the file in place at every start, so a reader may meet it empty or half
//! written. Whatever does not pass every check here changes nothing: the access read before stays.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use secrecy::{ExposeSecret, SecretString};

use super::dial;
use super::endpoints::Place;
use crate::types::Span;

/// How long a connection may be silent: longer than the minute between two bookmarks of a watch.
/// Requests have a deadline of their own.
const SILENCE: Span = Span::secs(95);

/// Largest file that is read: k3s' own is 3 KB.
const MOST: u64 = 1 << 20;

/// What tells one version of the file from the next without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// Everything that is needed to talk to the cluster.
#[derive(Clone)]
pub struct Access {
    /// For kube; `cluster_url` is replaced per endpoint.
    pub config: kube::Config,
    /// The kubeconfig's own URL.
    pub local: Place,
    /// The same for the same content.
    pub fingerprint: u64,
}

/// The file's stamp. Blocks on the disk.
pub fn stamp(path: &Path) -> Result<Stamp, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    Ok(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        changed: (meta.mtime(), meta.mtime_nsec()),
    })
}

/// Reads and checks the file and the files that it names. Blocks on the disk.
pub fn load(path: &Path, timeout: Span) -> Result<Access, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MOST {
        return Err(format!("is larger than {MOST} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    parse(&text, path.parent().unwrap_or(Path::new("/")), timeout)
}

/// The access that this text describes; `folder` is what its relative paths start from.
pub fn parse(text: &str, folder: &Path, timeout: Span) -> Result<Access, String> {
    if text.trim().is_empty() {
        return Err("is empty: k3s is perhaps writing it now".into());
    }
    // The reader's own message can quote the file, keys included.
    let mut whole = Kubeconfig::from_yaml(text).map_err(|_| "is not a whole YAML document")?;
    let (cluster, user) = selected(&mut whole)?;
    check_cluster(cluster, folder)?;
    check_user(user, folder)?;
    let fingerprint = fingerprint(cluster, user);
    let plain = cluster.server.as_deref().is_some_and(|url| url.starts_with("http://"));
    let bare = cluster.certificate_authority_data.is_none();

    let mut config = kube::Config::try_from(whole).map_err(
        |_| "its certificates, URL or proxy settings cannot be read: half written, or not base64",
    )?;
    // A proxy from the environment must not carry the lock's requests.
    config.proxy_url = None;
    config.default_retry = false;
    config.connect_timeout = Some(timeout.as_std());
    config.write_timeout = Some(timeout.as_std());
    config.read_timeout = Some(SILENCE.as_std());
    config.reset_reader_on_write = true;

    let local = Place::parse(&config.cluster_url.to_string())
        .ok_or("its server is not an http(s) URL with a host")?;
    if plain && !local.is_loopback() {
        return Err("its server is a plain http URL: only https is dialled off this host".into());
    }
    if bare && !plain {
        return Err("names no certificate-authority for its server".into());
    }
    if !plain && config.root_cert.as_ref().is_none_or(Vec::is_empty) {
        return Err("its certificate-authority holds no certificate".into());
    }
    dial::tls(&config)?;
    Ok(Access { config, local, fingerprint })
}

/// The cluster and the user of the current context.
fn selected(whole: &mut Kubeconfig) -> Result<(&mut Cluster, &mut AuthInfo), String> {
    let name = whole
        .current_context
        .clone()
        .filter(|name| !name.is_empty())
        .ok_or("has no current-context")?;
    let context = whole
        .contexts
        .iter()
        .find(|context| context.name == name)
        .and_then(|context| context.context.clone())
        .ok_or_else(|| format!("has no context {name:?}, which is its current-context"))?;
    let cluster = whole
        .clusters
        .iter_mut()
        .find(|cluster| cluster.name == context.cluster)
        .and_then(|cluster| cluster.cluster.as_mut())
        .ok_or_else(|| format!("has no cluster {:?}", context.cluster))?;
    let user = context.user.unwrap_or_default();
    let user = whole
        .auth_infos
        .iter_mut()
        .find(|info| info.name == user)
        .and_then(|info| info.auth_info.as_mut())
        .ok_or_else(|| format!("has no user {user:?}"))?;
    Ok((cluster, user))
}

fn check_cluster(cluster: &mut Cluster, folder: &Path) -> Result<(), String> {
    if cluster.insecure_skip_tls_verify == Some(true) {
        return Err("asks for insecure-skip-tls-verify, which foip does not do".into());
    }
    if cluster.proxy_url.as_ref().is_some_and(|url| !url.is_empty()) {
        return Err("names a proxy-url, which foip does not use".into());
    }
    inline(&mut cluster.certificate_authority_data, cluster.certificate_authority.take(), folder)
}

/// Credentials must be there: kube takes a user that is cut off for one without any.
fn check_user(user: &mut AuthInfo, folder: &Path) -> Result<(), String> {
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err("gets its credentials from a plugin, which foip does not run".into());
    }
    inline(&mut user.client_certificate_data, user.client_certificate.take(), folder)?;
    let mut key = user.client_key_data.take().map(|key| key.expose_secret().to_owned());
    inline(&mut key, user.client_key.take(), folder)?;
    user.client_key_data = key.map(SecretString::from);
    if let Some(file) = user.token_file.take().filter(|_| user.token.is_none()) {
        let token = std::fs::read_to_string(folder.join(&file))
            .map_err(|error| format!("names {file}: {error}"))?;
        user.token = Some(SecretString::from(token.trim().to_owned()));
    }
    let certificate = user.client_certificate_data.is_some() && user.client_key_data.is_some();
    let other = user.token.is_some() || user.username.is_some();
    if certificate || other {
        Ok(())
    } else {
        Err("its user has no client certificate and key, and no token".into())
    }
}

/// Reads what is named by path now, so that nothing reads files while requests are made.
fn inline(data: &mut Option<String>, file: Option<String>, folder: &Path) -> Result<(), String> {
    if let (None, Some(file)) = (&data, file) {
        let content =
            std::fs::read(folder.join(&file)).map_err(|error| format!("names {file}: {error}"))?;
        *data = Some(STANDARD.encode(content));
    }
    Ok(())
}

fn fingerprint(cluster: &Cluster, user: &AuthInfo) -> u64 {
    let mut hasher = DefaultHasher::new();
    cluster.server.hash(&mut hasher);
    cluster.tls_server_name.hash(&mut hasher);
    cluster.certificate_authority_data.hash(&mut hasher);
    user.client_certificate_data.hash(&mut hasher);
    user.username.hash(&mut hasher);
    for secret in [&user.client_key_data, &user.token, &user.password] {
        secret.as_ref().map(ExposeSecret::expose_secret).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
