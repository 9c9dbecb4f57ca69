//! The built program from the outside: what it prints, where, and how it exits. All of it runs on the embedded model.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod config;
mod embed;
mod interrupted;
mod loading;
mod opencl;
mod pages;
mod pressure;
mod program;
mod run;
mod serve;
#[cfg(feature = "otlp")]
mod traces;
