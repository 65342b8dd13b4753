//! Models from a hub, kept in a folder: which files a model needs, their download, and finding them again by name.
//!
//! - [`Hub`] asks a hub what a model consists of and makes a [`Plan`]: the files that are needed, with sizes and hashes,
//!   at one commit.
//! - [`Store`] is a folder of models. [`Store::pull`] carries out a plan, [`Store::find`] finds a model by its name or a
//!   short form of it, [`Store::remove`] deletes one.
//!
//! A model is in the store whole or not at all: files are downloaded into a folder beside it, each is checked against the
//! hash that the hub gives, and the folder takes its place by one renaming. A download that is cut, or killed, goes on where
//! it was; parts are only continued with bytes of the same content.
//!
//! The crate knows nothing of what a model computes, prints nothing and reads no environment.
//!
//! # Why not `hf-hub`
//!
//! Version 1.0 starts a file again after a cut, does not compare hashes, and brings 280 crates with it, among them an
//! asynchronous runtime. What is needed here of the hub's API is three requests; `ureq` makes them with a twentieth of that.

#![forbid(unsafe_code)]

mod digest;
mod download;
mod error;
mod http;
mod hub;
mod name;
mod plan;
mod receipt;
mod selection;
mod stage;
mod store;
mod verify;

pub use digest::Digest;
pub use download::Event;
pub use error::Error;
pub use http::tls;
pub use hub::{Hub, HubOptions};
pub use name::ModelName;
pub use plan::{Plan, PlannedFile};
pub use store::{Model, Store};
pub use ureq::Proxy;
pub use verify::{KnownFile, known_files};
