//! The story of the README on a real Kubernetes, step by step, with the real commands and their real output.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use quorate_e2e_cluster::story;

/// Plays the story of the README on a real Kubernetes of three nodes.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo --")]
struct Arguments {
    /// Use this cluster instead of the test bed; a cluster of kind or k3d gets the images by itself
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The nodes of that cluster have the two images already
    #[arg(long, requires = "kubeconfig")]
    images_loaded: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let place = match arguments.kubeconfig {
        None => story::Place::TestBed,
        Some(kubeconfig) => {
            story::Place::Given { kubeconfig, images_loaded: arguments.images_loaded }
        }
    };
    match story::tell(&place) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo FAILED: {error:#}");
            look_around(&place);
            ExitCode::FAILURE
        }
    }
}

/// What a person would look at first after a failure.
fn look_around(place: &story::Place) {
    for line in story::diagnosis() {
        eprintln!("\n$ {}", line.join(" "));
        let mut command: Command = place.command(&line);
        if let Err(error) = command.status() {
            eprintln!("cannot be started: {error}");
        }
    }
}
