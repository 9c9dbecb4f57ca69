//! Where the spans of requests go: to a collector of traces, if one is named and this build can talk to one.

#[cfg(feature = "otlp")]
mod otlp;

use tidegate::settings::Settings;

use super::logging;

/// Who sends spans, until serving is over.
pub(super) struct Traces {
    #[cfg(feature = "otlp")]
    export: Option<otlp::Export>,
}

impl Traces {
    /// Starts logging for a server, and sending spans where that is asked for.
    #[cfg(feature = "otlp")]
    pub(super) fn start(settings: &Settings) -> anyhow::Result<Self> {
        let collector = settings.server.collector();
        let (export, listener) = collector.map(|collector| otlp::start(&collector)).transpose()?.unzip();
        logging::start_beside(&settings.log, "info", listener)?;
        Ok(Self { export })
    }

    /// Starts logging for a server; a collector that is named in vain is remarked on.
    #[cfg(not(feature = "otlp"))]
    pub(super) fn start(settings: &Settings) -> anyhow::Result<Self> {
        logging::start_beside(&settings.log, "info", None)?;
        if settings.server.otlp_endpoint.is_some() {
            tracing::warn!(
                "this build sends no traces, so --otlp-endpoint is of no use; build it with --features otlp"
            );
        }
        Ok(Self {})
    }

    /// Sends what is left.
    pub(super) fn finish(self) {
        #[cfg(feature = "otlp")]
        self.export.into_iter().for_each(otlp::Export::finish);
    }
}
