//! The cluster's certificate authority, the certificates that it signs, and the kubeconfigs that hold them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::layout::{self, API_SERVER, CONTROL_PLANE_ADDRESS, KUBERNETES_SERVICE_ADDRESS};

/// openssl's own defaults would make every certificate an authority.
const OPENSSL_CONFIGURATION: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth, serverAuth
";

/// The bed lives hours; a year leaves room for a host whose clock is wrong.
const DAYS: &str = "365";

/// The files of the authority in the state directory.
pub(crate) struct Authority {
    directory: PathBuf,
}

impl Authority {
    /// Makes the authority and the key pair that signs service account tokens.
    ///
    /// # Errors
    /// openssl failed, or the directory cannot be written.
    pub(crate) fn create() -> Result<Self> {
        let directory = layout::state("certificates");
        fs::create_dir_all(&directory).context("create the certificate directory")?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        fs::write(directory.join("openssl.cnf"), OPENSSL_CONFIGURATION)?;
        let authority = Self { directory };
        let mut request = authority.request("ca", "/CN=quorate-testbed");
        command::output(request.args(["-extensions", "authority"]))?;
        let mut key = Command::new("openssl");
        key.args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]);
        command::output(key.arg(authority.file("service-account.key")))?;
        let mut public = Command::new("openssl");
        public.args(["pkey", "-pubout", "-in"]).arg(authority.file("service-account.key"));
        command::output(public.arg("-out").arg(authority.file("service-account.pub")))?;
        Ok(authority)
    }

    /// The path of a file of the authority: `ca.crt`, `NAME.key`, …
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Signs the API server's certificate, for every name and address by which it is called.
    pub(crate) fn sign_api_server(&self) -> Result<()> {
        let names = format!(
            "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
             DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,\
             IP:{CONTROL_PLANE_ADDRESS},IP:{KUBERNETES_SERVICE_ADDRESS}"
        );
        self.sign("kube-apiserver", "/CN=kube-apiserver", &["-addext", &names])
    }

    /// Signs a client certificate for a user and, where one is given, a group.
    pub(crate) fn sign_client(&self, file: &str, user: &str, group: Option<&str>) -> Result<()> {
        let group = group.map(|group| format!("/O={group}")).unwrap_or_default();
        self.sign(file, &format!("{group}/CN={user}"), &[])
    }

    /// Writes a kubeconfig for a certificate signed before, readable by its owner only.
    pub(crate) fn write_kubeconfig(&self, path: &Path, certificate: &str) -> Result<()> {
        let at = |name: &str| self.file(name).display().to_string();
        let (ca, crt) = (at("ca.crt"), at(&format!("{certificate}.crt")));
        let key = at(&format!("{certificate}.key"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: quorate-testbed\n\
             clusters:\n- name: quorate-testbed\n  cluster:\n    server: {API_SERVER}\n    \
             certificate-authority: {ca}\n\
             users:\n- name: {certificate}\n  user:\n    client-certificate: {crt}\n    \
             client-key: {key}\n\
             contexts:\n- name: quorate-testbed\n  context:\n    cluster: quorate-testbed\n    \
             user: {certificate}\n"
        );
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("protect {}", path.display()))
    }

    fn sign(&self, file: &str, subject: &str, more: &[&str]) -> Result<()> {
        let mut request = self.request(file, subject);
        request.args(["-extensions", "leaf", "-CA"]).arg(self.file("ca.crt"));
        request.arg("-CAkey").arg(self.file("ca.key")).args(more);
        command::output(&mut request).map(drop)
    }

    fn request(&self, file: &str, subject: &str) -> Command {
        let mut request = Command::new("openssl");
        request.args(["req", "-x509", "-new", "-nodes", "-sha256", "-days", DAYS]);
        request.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        request.arg("-config").arg(self.file("openssl.cnf")).args(["-subj", subject]);
        request.arg("-keyout").arg(self.file(&format!("{file}.key")));
        request.arg("-out").arg(self.file(&format!("{file}.crt")));
        request
    }
}
