//! Spans of requests as OTLP: protobuf over HTTP, in batches, from a thread of the exporter's own.
//!
//! The server makes spans when a request has ended and says in fields when they were, so that is how they are handed on
//! here, with the times that they say and not with those at which they were made.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Uri;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, Key, KeyValue, Value};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{self, Layer};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::command::exit::Misuse;
use crate::command::logging::Listener;

/// A batch that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a collector's answer, which says nothing but how many spans it did not take.
const ANSWER: usize = 64 << 10;

/// Sends spans until it is told that there are no more.
pub(super) struct Export {
    provider: SdkTracerProvider,
}

impl Export {
    /// Sends what is left.
    pub(super) fn finish(self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Sends to the collector at an endpoint what the listener hears.
pub(super) fn start(endpoint: &str) -> anyhow::Result<(Export, Listener)> {
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start the exporter")?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector { runtime })
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url(endpoint)?)
        .build()
        .context("cannot export traces")?;
    let provider =
        SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build();
    let spans = Spans { tracer: provider.tracer("tidegate"), propagator: TraceContextPropagator::new() };
    let wanted = filter_fn(|told| told.target() == server::SPANS && *told.level() <= Level::DEBUG);
    let wanted = wanted.with_max_level_hint(LevelFilter::DEBUG);
    Ok((Export { provider }, Box::new(spans.with_filter(wanted))))
}

/// Where a collector takes traces.
fn url(endpoint: &str) -> Result<String, Misuse> {
    let wrong = || {
        Misuse(format!(
            "'{endpoint}' is no collector of traces: expected http://HOST:PORT, such as http://localhost:4318; where the \
             way to it is to be encrypted, run a collector beside this server"
        ))
    };
    let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    let base = endpoint.trim_end_matches('/');
    Ok(if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") })
}

/// Who sends: a name that the environment gives (`OTEL_SERVICE_NAME`) counts more than our own.
fn resource() -> Resource {
    let told = Resource::builder().build();
    let name = told.get(&Key::from_static_str("service.name"));
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder().with_attribute(version);
    if is_named { builder.build() } else { builder.with_service_name("tidegate").build() }
}

/// The way to the collector: a connection for each batch, on the exporter's thread.
#[derive(Debug)]
struct Collector {
    runtime: Runtime,
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange(request)).await })?
    }
}

async fn exchange(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("the endpoint names no host")?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Dropping the set ends the connection.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    head.headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
    head.uri = head.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// Makes spans of OpenTelemetry of those that the server makes.
struct Spans {
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

/// A span that is to end when that of the server is closed.
struct Made {
    span: opentelemetry_sdk::trace::Span,
    end: SystemTime,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: layer::Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut told = Told::default();
        attributes.record(&mut told);
        let parent = match span.parent() {
            Some(parent) => inside(&parent),
            None => told.context.as_ref().map(|context| {
                let headers = HashMap::from([("traceparent".to_owned(), context.clone())]);
                self.propagator.extract_with_context(&Context::new(), &headers)
            }),
        };
        let builder = self.tracer.span_builder(told.name.unwrap_or_else(|| span.name().to_owned()));
        let builder =
            builder.with_kind(told.kind).with_start_time(told.start).with_attributes(told.attributes);
        let mut made = self.tracer.build_with_context(builder, &parent.unwrap_or_default());
        made.set_status(told.status);
        span.extensions_mut().insert(Made { span: made, end: told.end });
    }

    /// The exporter may have something to say of a span that ends, and nothing may be logged while one is made.
    fn on_close(&self, id: Id, context: layer::Context<'_, S>) {
        let made = context.span(&id).and_then(|span| span.extensions_mut().remove::<Made>());
        if let Some(Made { mut span, end }) = made {
            span.end_with_timestamp(end);
        }
    }
}

/// What the children of a span are children of.
fn inside<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>) -> Option<Context> {
    let extensions = span.extensions();
    let made = extensions.get::<Made>()?;
    Some(Context::new().with_remote_span_context(made.span.span_context().clone()))
}

/// The fields of a span.
struct Told {
    name: Option<String>,
    kind: SpanKind,
    status: Status,
    start: SystemTime,
    end: SystemTime,
    /// The context in which a client asks.
    context: Option<String>,
    attributes: Vec<KeyValue>,
}

impl Default for Told {
    fn default() -> Self {
        let (kind, status) = (SpanKind::Internal, Status::Unset);
        let (start, end) = (UNIX_EPOCH, UNIX_EPOCH);
        Self { name: None, kind, status, start, end, context: None, attributes: Vec::new() }
    }
}

impl Told {
    fn attribute(&mut self, field: &Field, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(field.name(), value.into()));
    }
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "otel.name" => self.name = Some(value.to_owned()),
            "otel.kind" if value == "server" => self.kind = SpanKind::Server,
            "otel.status_code" if value == "ERROR" => self.status = Status::error(""),
            "traceparent" => self.context = Some(value.to_owned()),
            _ => self.attribute(field, value.to_owned()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let at = UNIX_EPOCH + Duration::from_nanos(value);
        match field.name() {
            "start_ns" => self.start = at,
            "end_ns" => self.end = at,
            _ => self.attribute(field, i64::try_from(value).unwrap_or(i64::MAX)),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.attribute(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_or_the_very_place() {
        let check = |endpoint: &str, expected: Option<&str>| {
            let found = url(endpoint);
            assert_eq!(found.as_deref().ok(), expected, "{endpoint}");
            assert!(
                expected.is_some() || found.is_err_and(|wrong| wrong.0.contains("http://localhost:4318"))
            );
        };
        check("http://localhost:4318", Some("http://localhost:4318/v1/traces"));
        check("http://[::1]:4318/otel/", Some("http://[::1]:4318/otel/v1/traces"));
        check("http://collector/v1/traces", Some("http://collector/v1/traces"));
        check("https://collector:4318", None);
        check("localhost:4317", None);
        check("http://", None);
    }
}
