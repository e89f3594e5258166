//! Clients behind proxies.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;

use super::*;

/// Sends a request with a wrong key, another one each time.
async fn guess(api: &Api, peer: [u8; 4], forwarded_for: &str) -> StatusCode {
    let pair = format!("tenant:{}", uuid::Uuid::new_v4());
    let pair = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pair);
    let request = Request::get("/api/v1/tenants")
        .header("authorization", format!("Basic {pair}"))
        .header("x-forwarded-for", forwarded_for);
    let mut request = request.body(Body::empty()).unwrap();
    let peer = SocketAddr::from((peer, 4711));
    request.extensions_mut().insert(ConnectInfo(peer));
    api.send(request).await.status
}

/// Sends wrong keys until there are too many.
async fn guess_too_often(api: &Api, peer: [u8; 4], forwarded_for: impl Fn(usize) -> String) {
    for n in 0..250 {
        let status = guess(api, peer, &forwarded_for(n)).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            return;
        }
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    panic!("wrong keys are not counted");
}

#[tokio::test]
async fn failures_count_for_the_client_of_a_trusted_proxy_alone() {
    let api = Api::new().await;
    let (proxy, stranger) = ([10, 1, 2, 3], [192, 0, 2, 9]);
    guess_too_often(&api, proxy, |n| {
        format!("198.51.100.{}, 192.0.2.1", n % 250)
    })
    .await;
    let again = guess(&api, proxy, "192.0.2.1").await;
    assert_eq!(again, StatusCode::TOO_MANY_REQUESTS);
    // Without the proxy it is the same client. Another one behind the proxy is not.
    let direct = guess(&api, [192, 0, 2, 1], "").await;
    assert_eq!(direct, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        guess(&api, proxy, "192.0.2.2").await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(guess(&api, proxy, "").await, StatusCode::UNAUTHORIZED);
    // A peer that is not trusted counts itself, whatever header it sends.
    guess_too_often(&api, stranger, |n| format!("198.51.100.{}", n % 250)).await;
    let other = guess(&api, proxy, "198.51.100.1").await;
    assert_eq!(other, StatusCode::UNAUTHORIZED);
}
