//! The service `grpc.health.v1.Health`: only the empty name, the server as a whole, is known, as in etcd.

use futures::stream::{self, BoxStream, StreamExt};
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};

use super::Api;

impl Api {
    /// Check.
    ///
    /// # Errors
    /// NotFound for any name but the empty one.
    pub async fn health_check(
        self,
        request: HealthCheckRequest,
    ) -> Result<HealthCheckResponse, Status> {
        if request.service.is_empty() {
            Ok(response(ServingStatus::Serving))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    /// Watch: the state now, then silence until the member stops.
    ///
    /// # Errors
    /// None; the signature is every handler's.
    pub async fn health_watch(
        self,
        request: HealthCheckRequest,
    ) -> Result<BoxStream<'static, Result<HealthCheckResponse, Status>>, Status> {
        let now = if request.service.is_empty() {
            ServingStatus::Serving
        } else {
            ServingStatus::ServiceUnknown
        };
        let mut ending = self.ending(false);
        let last = stream::once(async move {
            ending.wait().await;
            Ok(response(ServingStatus::NotServing))
        });
        Ok(stream::once(async move { Ok(response(now)) }).chain(last).boxed())
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}
