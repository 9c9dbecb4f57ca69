//! The server under load.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::SEQUENCES;
use super::mix::TENANTS;

/// Longer than a start or an end takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `tidegate serve` of its own, on the embedded model and a free port.
pub(crate) struct Server {
    process: Child,
    folder: std::path::PathBuf,
    address: String,
}

/// What a page of metrics says.
pub(crate) struct Metrics(Vec<(String, f64)>);

impl Server {
    /// Starts one that lets so many requests wait, with settings beside those.
    pub(crate) async fn start(
        (binary, model): (&Path, Option<&Path>),
        queue: usize,
        more: &[&str],
    ) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("tidegate-load-{}-{queue}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let keys: String = TENANTS.iter().map(|(name, _)| format!("{name} {name}\n")).collect();
        let weights: Vec<String> = TENANTS.iter().map(|(name, weight)| format!("{name}={weight}")).collect();
        let (key_file, said) = (folder.join("keys"), folder.join("stderr"));
        fs::write(&key_file, keys)?;
        let mut command = Command::new(binary);
        command.args(["serve", "--port", "0", "--queue-policy", "fair_share", "--log", "error"]);
        command.args(["--max-sequences", &SEQUENCES.to_string(), "--max-queue", &queue.to_string()]);
        command.args(["--tenant-weight", &weights.join(",")]).arg("--api-keys-file").arg(key_file);
        command.args(more);
        model.into_iter().for_each(|model| _ = command.arg("--model").arg(model));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&said)?);
        let process = command.spawn().with_context(|| format!("cannot run {}", binary.display()))?;
        let mut server = Self { process, folder, address: String::new() };
        let began = Instant::now();
        while server.address.is_empty() {
            let said = fs::read_to_string(&said)?;
            ensure!(server.process.try_wait()?.is_none(), "the server ended:\n{said}");
            ensure!(began.elapsed() < PATIENCE, "the server does not say where it listens:\n{said}");
            let mut lines = said.split_inclusive('\n');
            let address =
                lines.find_map(|line| line.strip_prefix("listening on http://")?.strip_suffix('\n'));
            server.address = address.unwrap_or_default().to_owned();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(server)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its metrics once it has nothing to do.
    pub(crate) async fn idle(&self) -> Result<Metrics> {
        let began = Instant::now();
        loop {
            let metrics = self.metrics().await?;
            let busy = ["tidegate_requests_queued", "tidegate_sequences_running", "tidegate_kv_pages_used"];
            if busy.iter().all(|name| metrics.sum(name) == 0.0) || began.elapsed() > PATIENCE {
                return Ok(metrics);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn metrics(&self) -> Result<Metrics> {
        let mut stream = TcpStream::connect(self.address()).await?;
        let ask = format!("GET /metrics HTTP/1.0\r\nhost: {}\r\n\r\n", self.address);
        stream.write_all(ask.as_bytes()).await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        let samples = page.lines().filter(|line| line.starts_with("tidegate_"));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(Metrics(samples.filter_map(sample).collect()))
    }

    /// Bytes of memory that it holds.
    pub(crate) fn resident(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.context("the system does not say how much memory the server holds")? << 10)
    }

    /// Ends it, and looks at how it does.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let told = Command::new("kill").arg(self.process.id().to_string()).status()?;
        ensure!(told.success(), "the server cannot be told to end");
        let began = Instant::now();
        loop {
            match self.process.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the server ended with {status}"),
                None if began.elapsed() > PATIENCE => bail!("the server does not end"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless something went wrong that is being reported.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Metrics {
    /// All samples of a name together.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let named = |full: &str| full.split('{').next() == Some(name);
        self.0.iter().filter(|(full, _)| named(full)).map(|(_, value)| value).sum()
    }

    /// Those of its samples that carry a label of this value.
    pub(crate) fn labelled(&self, name: &str, value: &str) -> f64 {
        let value = format!("\"{value}\"");
        let named = |full: &str| full.split('{').next() == Some(name) && full.contains(&value);
        self.0.iter().filter(|(full, _)| named(full)).map(|(_, value)| value).sum()
    }
}
