//! Which clients `ringfence webhook` lets in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::runtime::Tasks;
use crate::webhook::tls::Clients;

/// Which clients are let in.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ClientArgs {
    /// Let in only clients with a certificate that an authority of this file (PEM) has signed: API servers that
    /// are configured to show one. Read again when it changes. No path of this port answers to anybody else, so that
    /// probes have to use --admin then.
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// Of these only clients with this DNS name or common name; may be repeated.
    #[arg(long, value_name = "NAME", requires = "client_ca", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    client_name: Vec<String>,
}

/// How often the file is looked at.
const LOOK_AT_AUTHORITIES: Duration = Duration::from_secs(10);

// === impl ClientArgs ===

impl ClientArgs {
    /// Settles who is let in and starts what keeps that true to its file. None: everybody.
    pub(super) fn clients(&self, tasks: &mut Tasks) -> anyhow::Result<Option<Arc<Clients>>> {
        let Some(path) = self.client_ca.clone() else {
            return Ok(None);
        };
        let clients = Clients::load(&path, self.client_name.clone()).context("--client-ca")?;
        let following = Arc::clone(&clients).follow(path, LOOK_AT_AUTHORITIES);
        tasks.spawn("authorities of clients", following);
        Ok(Some(clients))
    }
}
