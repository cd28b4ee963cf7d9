//! The kubeconfig: read whole, checked whole, and only then used.
//!
//! k3s truncates and rewrites the file in place at every start, so a reader may meet it empty or half
//! written. Whatever does not pass every check here changes nothing: the access read before stays.

use std::collections::hash_map::DefaultHasher;
use std::fs::{File, Metadata};
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use secrecy::{ExposeSecret, SecretString};

use super::dial;
use super::endpoints::Place;
use super::failure::words;
use crate::types::Span;

/// How long a connection may be silent: longer than the minute between two bookmarks of a watch.
/// Requests have a deadline of their own.
const SILENCE: Span = Span::secs(95);

/// Largest file that is read, here and of those it names: k3s' own is 3 KB.
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
    let meta = std::fs::metadata(path).map_err(|error| not_read(&error))?;
    regular(&meta)?;
    Ok(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        changed: (meta.mtime(), meta.mtime_nsec()),
    })
}

/// Reads and checks the file and the files that it names. Blocks on the disk.
pub fn load(path: &Path, timeout: Span) -> Result<Access, String> {
    let bytes = read(path)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err("is compressed with gzip: put the text itself there".into());
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not text")?;
    parse(&text, path.parent().unwrap_or(Path::new("/")), timeout)
}

/// What is in a regular file that is not too large. Anything else is not even opened: a pipe or a device may
/// hang, or never end.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    regular(&std::fs::metadata(path).map_err(|error| not_read(&error))?)?;
    let file = File::open(path).map_err(|error| not_read(&error))?;
    regular(&file.metadata().map_err(|error| not_read(&error))?)?;
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(|error| not_read(&error))?;
    if bytes.len() as u64 > MOST {
        return Err(format!("is larger than {MOST} bytes"));
    }
    Ok(bytes)
}

fn regular(meta: &Metadata) -> Result<(), String> {
    if meta.is_file() {
        return Ok(());
    }
    let what = if meta.is_dir() { "is a directory" } else { "is a pipe or a device" };
    Err(format!("{what}, not a file"))
}

fn not_read(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        return "there is no such file: k3s writes its own when its server starts (does it run here?); another one \
                is named by `kubeconfig` in [kubernetes]"
            .into();
    }
    words(&error.to_string())
}

/// The access that this text describes; `folder` is what its relative paths start from.
pub fn parse(text: &str, folder: &Path, timeout: Span) -> Result<Access, String> {
    if text.trim().is_empty() {
        return Err("is empty: k3s is perhaps writing it now; if it stays so, restart k3s".into());
    }
    // The reader's own message can quote the file, keys included.
    let mut whole = Kubeconfig::from_yaml(text).map_err(|_| NOT_WHOLE)?;
    checked(&mut whole, folder, timeout).map_err(|why| match cut_off(text) {
        Some(sign) => format!("{why} ({sign}: does it end in the middle?)"),
        None => why,
    })
}

const NOT_WHOLE: &str = "is not a whole YAML document: it ends in the middle, or an edit broke it; k3s writes its own \
     anew when it starts";

/// What makes this look like the first half of a file: a part that every kubeconfig has is missing, or the last
/// line's end, which k3s writes.
fn cut_off(text: &str) -> Option<String> {
    let has = |name: &str| {
        let yaml = text.lines().any(|line| line.trim_start_matches('\u{feff}').starts_with(name));
        yaml || text.contains(&format!("\"{name}\""))
    };
    let missing =
        ["clusters", "contexts", "current-context", "users"].into_iter().find(|name| !has(name));
    let open = || (!text.ends_with('\n')).then(|| "its last line has no end".into());
    missing.map(|name| format!("there is no `{name}` in it")).or_else(open)
}

fn checked(whole: &mut Kubeconfig, folder: &Path, timeout: Span) -> Result<Access, String> {
    let (cluster, user) = selected(whole)?;
    check_cluster(cluster, folder)?;
    check_user(user, folder)?;
    let plain = cluster.server.as_deref().is_some_and(|url| url.starts_with("http://"));
    let bare = cluster.certificate_authority_data.is_none();
    let fingerprint = fingerprint(cluster, user, timeout);

    let mut config = kube::Config::try_from(whole.clone()).map_err(
        |_| "its certificate-authority or its server's URL cannot be read: the file ends in the middle, or was edited",
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
        return Err("names no certificate-authority for its server, as k3s' own does".into());
    }
    if !plain && config.root_cert.as_ref().is_none_or(Vec::is_empty) {
        return Err("its certificate-authority holds no certificate (BEGIN CERTIFICATE)".into());
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
        return Err("asks for insecure-skip-tls-verify, which foip does not do: name the \
             certificate-authority-data of the cluster instead"
            .into());
    }
    if cluster.proxy_url.as_ref().is_some_and(|url| !url.is_empty()) {
        return Err(
            "names a proxy-url, which foip does not use: let server be an address that this host \
             reaches, and take proxy-url out"
                .into(),
        );
    }
    let (data, file) =
        (&mut cluster.certificate_authority_data, &mut cluster.certificate_authority);
    inline(data, file, folder, "certificate-authority")
}

/// Credentials must be there: kube takes a user that is cut off for one without any.
fn check_user(user: &mut AuthInfo, folder: &Path) -> Result<(), String> {
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err("gets its credentials from a plugin (exec or auth-provider), which foip does not run: use \
             a client certificate or a token"
            .into());
    }
    let (data, file) = (&mut user.client_certificate_data, &mut user.client_certificate);
    inline(data, file, folder, "client-certificate")?;
    let mut key = user.client_key_data.take().map(|key| key.expose_secret().to_owned());
    inline(&mut key, &mut user.client_key, folder, "client-key")?;
    user.client_key_data = key.map(SecretString::from);
    if let Some(file) = user.token_file.take().filter(|_| user.token.is_none()) {
        let token = named("tokenFile", &file, folder)?;
        let token = String::from_utf8(token).map_err(|_| "its tokenFile is not text")?;
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

/// Reads what is named by path now, so that nothing reads files while requests are made, and leaves
/// base64 on one line: in YAML it may have several, and kube takes it as one.
fn inline(
    data: &mut Option<String>,
    file: &mut Option<String>,
    folder: &Path,
    what: &str,
) -> Result<(), String> {
    let file = file.take();
    if let Some(data) = data {
        data.retain(|c| !c.is_ascii_whitespace());
        return match STANDARD.decode(data.as_bytes()) {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "its {what}-data is not base64: the file ends in the middle, or was edited"
            )),
        };
    }
    if let Some(file) = file {
        *data = Some(STANDARD.encode(named(what, &file, folder)?));
    }
    Ok(())
}

/// The content of a file that the kubeconfig names.
fn named(what: &str, file: &str, folder: &Path) -> Result<Vec<u8>, String> {
    let path = folder.join(file);
    let missing = || match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some("which is not there".to_owned())
        }
        Ok(_) | Err(_) => None,
    };
    read(&path).map_err(|why| {
        let why = missing().unwrap_or_else(|| format!("which cannot be used: {why}"));
        format!("names {} as its {what}, {why}", words(&path.display().to_string()))
    })
}

fn fingerprint(cluster: &Cluster, user: &AuthInfo, timeout: Span) -> u64 {
    let mut hasher = DefaultHasher::new();
    timeout.hash(&mut hasher);
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
