//! Channels over a service in the place of connections, without a socket and on paused time.

use tonic::Code;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;
use tower_eureka::Eureka;

use crate::world::{Does, Stub, check, watch};

#[tokio::test(start_paused = true)]
async fn channel_calls_instances_through_the_service() {
    for does in [Does::End, Does::Fail] {
        let routes = Routes::new(HealthServer::new(Stub::new("grpc-1", does)));
        let builder = Eureka::builder().service_url("http://registry/eureka").fetch_registry(false);
        let eureka =
            builder.instance_service(routes).static_instances("inventory", ["http://10.0.0.1:1"]).build().unwrap();
        let mut client = HealthClient::new(eureka.channel("inventory"));
        if does == Does::End {
            assert_eq!(check(&mut client).await.unwrap(), "grpc-1");
            assert_eq!(watch(&mut client).await.unwrap(), 1);
        } else {
            let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::Unavailable, "scripted failure"));
        }
    }
}
