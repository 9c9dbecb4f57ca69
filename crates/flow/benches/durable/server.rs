//! A server that is installed, started on a free port with a folder of its own, and ended with the bench.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A server that runs.
pub(crate) struct Server {
    process: Child,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// Starts the server and waits until it listens; `None`, with a line that says so, if it is not installed.
pub(crate) fn start(mut command: Command, port: u16) -> Option<Server> {
    let program = command.get_program().to_string_lossy().into_owned();
    let Ok(process) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        println!("{program} is not installed here, so it is left out");
        return None;
    };
    let server = Server { process, port };
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if begun.elapsed() > Duration::from_secs(10) {
            println!("{program} does not listen, so it is left out");
            return None;
        }
        sleep(Duration::from_millis(20));
    }
    Some(server)
}
