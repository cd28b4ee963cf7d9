//! A file on a disk that hangs.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Whoever has a write lease on a file keeps others from opening it: the kernel lets them wait for up to 45 s, as a
/// disk that does not answer does. Let go when dropped.
pub struct Held(Child);

impl Held {
    /// Holds the file, once the kernel has granted it.
    pub fn new(path: &Path) -> Self {
        // 1024 is F_SETLEASE and 1 is F_WRLCK; the kernel's signal that somebody waits is not heard.
        let script = "$SIG{IO} = 'IGNORE'; open(my $f, '+<', $ARGV[0]) or die; fcntl($f, 1024, 1) or die; $| = 1; \
                      print \"held\\n\"; <STDIN>;";
        let mut child = Command::new("perl");
        child.args(["-e", script]).arg(path);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut told = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut told).expect("the lease is had");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}
