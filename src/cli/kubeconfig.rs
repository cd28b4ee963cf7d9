//! `foip import-kubeconfig`: what root alone may read reaches the service without a process of root.
//!
//! systemd reads the files and hands them in as credentials; this copies them to where the service looks.

use std::io;

use super::Failure;
use crate::config::Places;
use crate::files::replace;

/// The credentials, which are copied under their own names; the second may be missing.
const KUBECONFIG: &str = "kubeconfig";
const CERTIFICATE: &str = "kubelet-certificate";

/// What the unit hands in for a file that does not exist.
const ABSENT: &[u8] = b"absent";

/// Copies `$CREDENTIALS_DIRECTORY/kubeconfig`, and `kubelet-certificate` where there is one, to `$RUNTIME_DIRECTORY`.
///
/// An empty one is left out: k3s truncates a file when it starts to write it, and will be done soon, which
/// starts this again. The last good one stays until then.
pub(super) fn import(places: &Places) -> Result<(), Failure> {
    let Some(credentials) = &places.credentials else {
        return Err(Failure::Failed(
            "there is no CREDENTIALS_DIRECTORY; this is for foip-kubeconfig.service, which sets it"
                .into(),
        ));
    };
    for (name, needed) in [(KUBECONFIG, true), (CERTIFICATE, false)] {
        let (source, target) = (credentials.join(name), places.runtime.join(name));
        let text = match std::fs::read(&source) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => continue,
            read => read.map_err(|error| failed("read", &source, &error))?,
        };
        if !text.iter().all(u8::is_ascii_whitespace) && text != ABSENT {
            replace(&target, &text, 0o600).map_err(|error| failed("write", &target, &error))?;
        }
    }
    Ok(())
}

fn failed(what: &str, path: &std::path::Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::files::tests::Folder;

    #[test]
    fn a_whole_one_is_copied_and_an_empty_one_keeps_the_last() {
        let folder = Folder::new();
        let places = Places {
            state: folder.0.clone(),
            runtime: folder.0.join("run"),
            credentials: Some(folder.0.join("credentials")),
        };
        assert!(import(&places).is_err());
        fs::create_dir(folder.0.join("run")).unwrap();
        fs::create_dir(folder.0.join("credentials")).unwrap();
        assert!(import(&places).is_err());
        let source = folder.0.join("credentials/kubeconfig");
        let target = folder.0.join("run/kubeconfig");
        fs::write(&source, "apiVersion: v1\n").unwrap();
        import(&places).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "apiVersion: v1\n");
        let mode = fs::metadata(&target).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for empty in ["", "\n"] {
            fs::write(&source, empty).unwrap();
            import(&places).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), "apiVersion: v1\n");
        }
        let source = folder.0.join("credentials/kubelet-certificate");
        let target = folder.0.join("run/kubelet-certificate");
        fs::write(&source, "absent").unwrap();
        import(&places).unwrap();
        assert!(!target.exists(), "a server without an agent has none");
        fs::write(&source, "a certificate").unwrap();
        import(&places).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "a certificate");
    }
}
