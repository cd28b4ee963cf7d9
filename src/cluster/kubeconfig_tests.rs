//! Tests of the kubeconfig: every state in which k3s leaves the file while it writes it.

use std::path::PathBuf;

use rcgen::{CertificateParams, Issuer, KeyPair};

use super::*;

/// A k3s kubeconfig with keys in SEC1 form, and what it is made of.
struct Made {
    ca: String,
    certificate: String,
    key: String,
}

/// DER of the PKCS#8 wrapping of a P-256 key begins so; the SEC1 key follows (RFC 5208, RFC 5915).
fn sec1(pair: &KeyPair) -> String {
    let der = pair.serialize_der();
    // SEQUENCE, INTEGER 0, AlgorithmIdentifier, OCTET STRING: 2 or 3 + 3 + 21 + 2 bytes.
    let at = der.windows(2).position(|w| w == [0x04, 0x6d]).unwrap();
    let body = STANDARD.encode(&der[at + 2..]);
    let lines: Vec<String> =
        body.as_bytes().chunks(64).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
    format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n", lines.join("\n"))
}

fn made() -> Made {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["admin".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    Made {
        ca: ca_certificate.pem(),
        certificate: format!("{}{}", leaf.pem(), ca_certificate.pem()),
        key: sec1(&key),
    }
}

impl Made {
    fn text(&self) -> String {
        self.with("https://127.0.0.1:6443")
    }

    fn with(&self, server: &str) -> String {
        let [ca, certificate, key] =
            [&self.ca, &self.certificate, &self.key].map(|pem| STANDARD.encode(pem));
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  name: default\n\
             contexts:\n- context:\n    cluster: default\n    user: default\n  name: default\ncurrent-context: default\n\
             kind: Config\npreferences: {{}}\nusers:\n- name: default\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n"
        )
    }
}

fn read(text: &str) -> Result<Access, String> {
    parse(text, Path::new("/nonexistent"), Span::secs(2))
}

fn refusal(text: &str) -> String {
    match read(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(why) => why,
    }
}

#[test]
fn a_whole_k3s_kubeconfig_with_sec1_keys_is_read() {
    let made = made();
    assert!(made.key.starts_with("-----BEGIN EC PRIVATE KEY-----"));
    let access = read(&made.text()).unwrap();
    assert_eq!(access.local.url(), "https://127.0.0.1:6443");
    assert!(!access.config.default_retry);
    assert!(access.config.proxy_url.is_none());
    assert_eq!(access.config.connect_timeout, Some(Span::secs(2).as_std()));
    assert!(access.config.read_timeout.is_some() && access.config.reset_reader_on_write);
}

#[test]
fn no_beginning_of_the_file_is_taken_for_the_file() {
    let text = made().text();
    // The last four characters are the line end behind the key: without them the key is still whole.
    let last = text.trim_end().len() - 4;
    for end in (0..last).step_by(7).chain(last - 40..last) {
        let (half, why) = (&text[..end], refusal(&text[..end]));
        let told = why.contains("in the middle") || why.starts_with("is empty");
        assert!(told || half.ends_with('\n'), "{end} of {} bytes: {why}", text.len());
    }
    assert!(read(&text[..last]).is_ok());
}

#[test]
fn several_ca_certificates_are_all_taken() {
    let (mut first, second) = (made(), made());
    first.ca.push_str(&second.ca);
    let access = read(&first.text()).unwrap();
    assert_eq!(access.config.root_cert.unwrap().len(), 2);
}

#[test]
fn the_current_context_is_followed() {
    let made = made();
    let text = made
        .text()
        .replace("current-context: default", "current-context: other")
        .replace(
            "contexts:\n",
            "contexts:\n- context:\n    cluster: far\n    user: default\n  name: other\n",
        )
        .replace(
            "clusters:\n",
            &format!(
                "clusters:\n- cluster:\n    certificate-authority-data: {}\n    server: https://192.0.2.9:7443\n  name: far\n",
                STANDARD.encode(&made.ca)
            ),
        );
    assert_eq!(read(&text).unwrap().local.url(), "https://192.0.2.9:7443");
    assert!(
        refusal(&text.replace("current-context: other", "current-context: gone")).contains("gone")
    );
}

/// Go's decoder, and with it kubectl, takes base64 with line breaks.
#[test]
fn base64_may_have_line_breaks() {
    let made = made();
    let ca = STANDARD.encode(&made.ca);
    let lines: Vec<String> = ca
        .as_bytes()
        .chunks(60)
        .map(|line| format!("      {}\n", String::from_utf8_lossy(line)))
        .collect();
    let block = format!("|\n{}", lines.concat());
    let text = made.text().replace(&format!("{ca}\n"), &block);
    assert!(text.contains("certificate-authority-data: |\n"));
    let access = read(&text).unwrap();
    assert_eq!(access.fingerprint, read(&made.text()).unwrap().fingerprint);
}

#[test]
fn another_deadline_is_another_access() {
    let text = made().text();
    let other = parse(&text, Path::new("/nonexistent"), Span::secs(5)).unwrap();
    assert_ne!(other.fingerprint, read(&text).unwrap().fingerprint);
}

/// What is read is a regular file of some size: a pipe would hang, a device never end.
#[test]
fn files_that_never_end_are_not_read() {
    let made = made();
    let folder = std::env::temp_dir().join(format!("foip-kubeconfig-odd-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::create_dir_all(folder.join("folder")).unwrap();
    let large = std::fs::File::create(folder.join("large")).unwrap();
    large.set_len(1 << 40).unwrap();
    let large = format!("is larger than {MOST} bytes");
    for (file, why) in [
        ("pipe", "is a pipe or a device, not a file"),
        ("/dev/zero", "is a pipe or a device, not a file"),
        ("folder", "is a directory, not a file"),
        ("large", large.as_str()),
    ] {
        let path = folder.join(file);
        assert_eq!(load(&path, Span::secs(2)).map(drop), Err(why.to_owned()), "{file}");
        for (data, named) in [
            ("certificate-authority-data", "certificate-authority"),
            ("client-certificate-data", "client-certificate"),
            ("client-key-data", "client-key"),
        ] {
            let text: String = made
                .text()
                .lines()
                .map(|line| match line.trim_start().starts_with(data) {
                    true => format!("    {named}: {}\n", path.display()),
                    false => format!("{line}\n"),
                })
                .collect();
            let said = parse(&text, &folder, Span::secs(2)).map(drop).unwrap_err();
            let wanted = format!("as its {named}, which cannot be used: {why}");
            assert!(said.contains(&wanted) && said.contains(file), "{said}");
        }
        let token = format!("    tokenFile: {}\n", path.display());
        let text = made.text();
        let text: String = text
            .lines()
            .filter(|line| !line.contains("client-key-data"))
            .map(|line| format!("{line}\n").replace("client-certificate-data", "other"))
            .collect();
        let said = parse(&format!("{text}{token}"), &folder, Span::secs(2)).map(drop).unwrap_err();
        assert!(said.contains("tokenFile"), "{said}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_foip_does_not_do_is_refused_by_name() {
    let made = made();
    let text = made.text();
    for (from, to, word) in [
        ("    server:", "    insecure-skip-tls-verify: true\n    server:", "insecure-skip"),
        ("    server:", "    proxy-url: http://192.0.2.1:3128\n    server:", "proxy-url"),
        ("current-context: default\n", "", "current-context"),
        ("cluster: default", "cluster: absent", "absent"),
        ("user: default", "user: absent", "absent"),
        ("https://127.0.0.1:6443", "http://192.0.2.1:6443", "plain http"),
        ("https://127.0.0.1:6443", "ldap://192.0.2.1", "URL"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        assert!(refusal(&changed).contains(word), "{word}: {}", refusal(&changed));
    }
    let without_ca: String = text
        .lines()
        .filter(|line| !line.contains("certificate-authority"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(refusal(&without_ca).contains("certificate-authority"));
    let plugin = format!(
        "{}    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      command: x\n",
        text
    );
    assert!(refusal(&plugin).contains("plugin"));
    for empty in ["", "\n \n", "\0\0\0\0"] {
        refusal(empty);
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (mut made, other) = (made(), made());
    made.key = other.key;
    assert!(refusal(&made.text()).contains("belong together"));
}

#[test]
fn no_refusal_quotes_the_file() {
    let made = made();
    let text = made.text();
    let key = STANDARD.encode(&made.key);
    for broken in [
        text.replace("client-key-data: ", "client-key-data: ["),
        text.replace("client-key-data: ", "client-key-data: !"),
        text.replace("client-key-data: ", "client-key-data: {a: "),
        text.replace(&key, &key[..key.len() - 5]),
    ] {
        let why = refusal(&broken);
        assert!(!why.contains(&key[10..40]) && why.len() < 200, "{why}");
    }
}

#[test]
fn files_named_by_path_are_read_at_once() {
    let made = made();
    let folder: PathBuf =
        std::env::temp_dir().join(format!("foip-kubeconfig-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, content) in [("ca", &made.ca), ("crt", &made.certificate), ("key", &made.key)] {
        std::fs::write(folder.join(name), content).unwrap();
    }
    let text = "clusters:\n- cluster: {certificate-authority: ca, server: 'https://127.0.0.1:6443'}\n  name: a\n\
                contexts:\n- context: {cluster: a, user: b}\n  name: c\ncurrent-context: c\n\
                users:\n- name: b\n  user: {client-certificate: crt, client-key: key}\n";
    let path = folder.join("config");
    std::fs::write(&path, text).unwrap();
    let before = stamp(&path).unwrap();
    let access = load(&path, Span::secs(2)).unwrap();
    assert!(access.config.auth_info.client_key.is_none());
    assert_eq!(access.fingerprint, read(&made.text()).unwrap().fingerprint);
    assert_eq!(stamp(&path).unwrap(), before);
    std::fs::write(&path, format!("{text}\n")).unwrap();
    assert_ne!(stamp(&path).unwrap(), before);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(stamp(&path).is_err() && load(&path, Span::secs(2)).is_err());
}
