//! The stand-in of the same name; see the library's `kube` module.

use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("kube-standin: {text}");
            ExitCode::FAILURE
        }
    }
}

/// `NAME=IP`.
struct NamedNode(NodeSetup);

impl FromStr for NamedNode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let node = text.split_once('=').and_then(|(name, ip)| {
            ip.parse::<IpAddr>().ok().map(|address| NodeSetup::new(name, address))
        });
        node.map(Self).ok_or_else(|| format!("{text} is not NAME=IP"))
    }
}

fn run() -> Result<(), String> {
    block_signals();
    let args = Args::parse(
        USAGE,
        &["listen", "dir", "nodes", "control", "log", "endpoints", "sans"],
        &["stdin"],
    )?;
    let mut listen: Vec<Listen> = args.list("listen")?;
    let nodes = args.list::<NamedNode>("nodes")?.into_iter().map(|node| node.0);
    let nodes: Vec<NodeSetup> = nodes.collect();
    for (number, place) in listen.iter_mut().enumerate() {
        if place.name.is_empty() {
            let node = nodes.iter().find(|node| node.addresses.contains(&place.addr.ip()));
            place.name = node.map_or(format!("listener-{number}"), |node| node.name.clone());
        }
    }
    let addresses = |name: &str| args.get(name).map(|_| args.list::<IpAddr>(name)).transpose();
    let endpoints = addresses("endpoints")?.or_else(|| {
        // A listener on loopback in a host's namespace is found by the host's own address.
        let named = |node: &&NodeSetup| listen.iter().any(|place| place.name == node.name);
        let ends: Vec<IpAddr> =
            nodes.iter().filter(named).filter_map(|node| node.addresses.first().copied()).collect();
        (!ends.is_empty()).then_some(ends)
    });
    let dir = PathBuf::from(args.need("dir")?);
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let log = match args.get("log") {
        Some(path) => Log::to_file(Path::new(path)).map_err(|error| format!("{path}: {error}"))?,
        None => Log::default(),
    };
    let setup =
        Setup { listen, nodes, addresses: addresses("sans")?.unwrap_or_default(), endpoints };
    let mut kube = Kube::start_with(setup, log).map_err(|error| error.to_string())?;
    let control = args.get("control").map_or_else(|| dir.join("kube.sock"), PathBuf::from);
    kube.open_control(&control).map_err(|error| format!("{}: {error}", control.display()))?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    write("ca.pem", &kube.ca_pem())?;
    for (number, place) in kube.listens().iter().enumerate() {
        write(&format!("{}.kubeconfig", place.name), &kube.kubeconfig(number))?;
        println!("{} {}", place.name, kube.url(number));
    }
    wait_for_end(args.has("stdin"));
    Ok(())
}
