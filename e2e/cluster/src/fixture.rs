//! What every test of a fear begins with: the bed with the operator on it, once a run, and nobody else on it meanwhile.

use std::ops::Deref;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::{Mutex, MutexGuard};

use crate::installation::{self, Installation};

/// Two cores carry one cluster under load, not two; and some fears are about nodes, which all share.
static ALONE: Mutex<()> = Mutex::const_new(());

static INSTALLATION: OnceLock<Result<Installation, String>> = OnceLock::new();

/// The bed, for one test, as long as this lives.
#[derive(Debug)]
pub struct Turn {
    installation: &'static Installation,
    _alone: MutexGuard<'static, ()>,
}

impl Deref for Turn {
    type Target = Installation;

    fn deref(&self) -> &Installation {
        self.installation
    }
}

/// Waits for the bed to be free. The first that asks brings it up.
///
/// # Errors
/// The bed or the operator cannot be brought up: every test of the run says so.
pub async fn turn() -> Result<Turn> {
    let alone = ALONE.lock().await;
    let installed =
        INSTALLATION.get_or_init(|| Installation::ensure().map_err(|error| format!("{error:#}")));
    let installation = installed.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(Turn { installation, _alone: alone })
}

impl Turn {
    /// A client of the API server with the administrator's rights, for the runtime of one test.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub async fn client(&self) -> Result<Client> {
        let file = Kubeconfig::read_from(self.bed.kubeconfig()).context("read the kubeconfig")?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .context("use the kubeconfig")?;
        Client::try_from(config).context("make a client of the API server")
    }

    /// The operator's pod.
    ///
    /// # Errors
    /// The API server does not answer, or there is another number of them than one.
    pub async fn operator(&self) -> Result<Pod> {
        let api = Api::<Pod>::namespaced(self.client().await?, installation::NAMESPACE);
        let mut pods = api.list(&ListParams::default()).await?.items;
        let count = pods.len();
        pods.pop().filter(|_| count == 1).with_context(|| format!("{count} operators are there"))
    }
}
