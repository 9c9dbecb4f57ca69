//! `tidegate serve`: a model over HTTP until someone asks it to stop.

mod pulse;
mod report;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use engine::{Eased, Reuse};
use flow::scheduler::Watermarks;
use protocol::Inference;
use protocol::Task;
use server::Ending;
use tidegate::memory::MemoryWatch;
use tidegate::settings::{ServerSettings, Settings};
use tidegate::{Opened, Summary, serve_settings};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Handle};
use tokio::time::timeout;

use super::interrupts::Interrupts;
use super::summary::{row_beside, rows};
use super::traces::Traces;
use super::{Exit, Talk, loading};

/// Threads for sockets and JSON. The computing is done by the engine's own threads.
const HTTP_THREADS: usize = 2;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(arguments: Arguments, talk: Talk) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let settings = arguments.settings;
    let traces = Traces::start(&settings)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let exit = runtime.block_on(serve(&settings, started, talk));
    // What still runs has had its time; waiting for it here would take that decision back.
    runtime.shutdown_background();
    traces.finish();
    exit
}

async fn serve(settings: &Settings, started: Instant, talk: Talk) -> anyhow::Result<Exit> {
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let front = serve_settings(settings)?;
    // The port is taken before the model is loaded: a port in use shall not cost the time to load.
    let listener = listen(&settings.server)?;
    let address = listener.local_addr().context("the socket has no address")?;
    let Some(opened) = loading::open(settings.inference.clone(), talk, &mut interrupts).await? else {
        return Ok(Exit::Interrupted);
    };
    if talk == Talk::Normal {
        eprintln!("{}", banner(&opened, &settings.server, address, started));
    }
    if !is_guarded(&settings.server) && !address.ip().is_loopback() {
        eprintln!("warning: whoever reaches {address} may use this server; --api-key closes it");
    }
    // This line stays even when quiet: with --port 0 nothing else says where the server is.
    // Standard error is not buffered: what is handed over in pieces can be read in pieces, such as an address without its port.
    let listening = format!("listening on http://{address}\n");
    eprint!("{listening}");
    let reuse = Arc::new(Reuse::new(opened.inference, settings.reuse.reuse()));
    let (inference, watch) = watched(reuse, settings.inference.memory.watermarks())?;
    let pulse = tokio::spawn(pulse::report(Arc::clone(&inference)));
    let served = Arc::clone(&inference);
    let serving = server::serve(listener, inference, front, async {
        interrupts.next().await;
        tracing::info!("finishing what runs; a second signal ends at once");
    });
    let mut again = Interrupts::listen().context("cannot listen for signals")?;
    let ending = tokio::select! {
        ending = serving => ending,
        () = async { again.next().await; again.next().await } => return Ok(Exit::Interrupted),
    };
    pulse.abort();
    drop(watch);
    report::write(&served.status(), started.elapsed());
    match ending {
        Ending::Drained => tracing::info!("everything accepted was finished"),
        Ending::TimedOut { connections } => {
            bail!("{connections} connections were cut because --shutdown-timeout passed")
        }
    }
    Ok(Exit::Done)
}

/// Inference that gives things up while memory is short, and who looks whether it is.
fn watched(
    inference: Arc<dyn Inference>,
    marks: Option<Watermarks>,
) -> anyhow::Result<(Arc<dyn Inference>, Option<MemoryWatch>)> {
    let Some(marks) = marks else { return Ok((inference, None)) };
    let eased = Arc::new(Eased::new(inference, marks));
    let (told, runtime) = (Arc::clone(&eased), Handle::current());
    let watch = MemoryWatch::start(marks.every, move |reading| {
        // An engine that is in the middle of a long step is told again later: what it has not answered in time is in its
        // hands all the same.
        let _ = runtime.block_on(async { timeout(marks.every, told.observe(reading)).await });
    });
    Ok((eased, Some(watch.context("cannot watch the memory")?)))
}

fn listen(settings: &ServerSettings) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(settings.host, settings.port);
    match bind(address) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!("port {} is in use; try --port 0, which takes a free one", settings.port)
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("port {} needs privileges that this process lacks; try --port 8080", settings.port)
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
    }
}

/// A burst of clients must fit into the kernel's backlog: whoever does not is left to try again, which takes a second, or
/// hears that the connection was reset. The kernel has a bound of its own, by default 4096.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    const BACKLOG: u32 = 4096;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_guarded(server: &ServerSettings) -> bool {
    !server.api_key.is_empty() || server.api_keys_file.is_some()
}

fn banner(opened: &Opened, server: &ServerSettings, address: SocketAddr, started: Instant) -> String {
    let guarded = is_guarded(server);
    let summary = &opened.summary;
    let mut rows = rows(summary);
    rows.extend(opened.beside.iter().map(row_beside));
    rows.push(("keys", if guarded { "needed" } else { "not needed" }.to_owned()));
    rows.push(("API", format!("http://{address}/v1")));
    rows.push(("health", format!("http://{address}/readyz, metrics http://{address}/metrics")));
    rows.push(("ready in", format!("{:.2} s", started.elapsed().as_secs_f64())));
    let rows = rows.iter().map(|(word, says)| format!("  {word:<12}{says}\n")).collect::<String>();
    let key = if guarded { "-H 'authorization: Bearer YOUR_KEY' " } else { "" };
    format!("tidegate {}\n{rows}\n{}\n", env!("CARGO_PKG_VERSION"), example(summary, key, address))
}

/// One line that can be pasted into a shell.
fn example(summary: &Summary, key: &str, address: SocketAddr) -> String {
    let json = "-H 'content-type: application/json'";
    let model = &summary.card.id;
    if !summary.card.can(Task::Generate) {
        let body = format!(r#"{{"model":"{model}","query":"tide","documents":["high water at noon"]}}"#);
        format!("  curl http://{address}/v1/rerank {key}{json} -d '{body}'")
    } else if summary.card.chat {
        let body =
            format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Once upon a tide"}}]}}"#);
        format!("  curl http://{address}/v1/chat/completions {key}{json} -d '{body}'")
    } else {
        let body = format!(r#"{{"model":"{model}","prompt":"Once upon a tide","max_tokens":32}}"#);
        format!("  curl http://{address}/v1/completions {key}{json} -d '{body}'")
    }
}
