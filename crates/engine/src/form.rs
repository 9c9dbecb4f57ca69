//! Keeping an output to a form: from a [`protocol::Form`] to the tokens that may come next.
//!
//! A form is compiled once, away from the engine's thread, and kept for the next request that asks for it. Each
//! continuation walks its own copy, its [`Guide`]. The set of tokens that may come next depends on nothing but the
//! tokens before, so a thread ([`Masks`]) computes it beside the model, or behind it. Where there is only
//! one way to go on, the tokens of it are not asked of the model.

mod compile;
mod guide;
mod masks;
mod recent;
mod remembered;
#[cfg(test)]
mod tests;
mod vocabulary;

pub(crate) use compile::Forms;
pub(crate) use guide::{Guide, Stride, Template};
pub(crate) use masks::Masks;
