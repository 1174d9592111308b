use serde_json::Value;

use super::*;
use crate::server::access::identity::Role;

/// Keys and tokens by PyJWT 2.15 and cryptography for Python. The tokens expire in 2100. The name
/// of a token says whether it is valid, or begins with the fault.
const TOKENS: &str = include_str!("tokens.json");

fn tokens() -> Vec<(String, String)> {
    let all: Value = serde_json::from_str(TOKENS).unwrap();
    let tokens = all["tokens"].as_object().unwrap();
    tokens.iter().map(|(name, token)| (name.clone(), token.as_str().unwrap().to_owned())).collect()
}

fn token(name: &str) -> String {
    tokens().into_iter().find(|(other, _)| other == name).unwrap().1
}

fn verifier(config: JwtKeys) -> Jwt {
    let jwt = Jwt::new(config);
    assert_eq!(jwt.set_keys(TOKENS.as_bytes()), Ok(4));
    jwt
}

#[test]
fn tokens_of_another_library_are_verified_or_refused_with_their_fault() {
    let jwt = verifier(JwtKeys::json(TOKENS));
    for (name, token) in tokens() {
        let result = jwt.verify(&token);
        if name.starts_with("valid") {
            let verified = result.unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
            let identity = verified.identity();
            assert_eq!(identity.name(), "orders", "{name}");
            assert_eq!(identity.roles().collect::<Vec<_>>(), [Role::Read, Role::Register], "{name}");
        } else if name != "issued" {
            let fault = format!("{:?}", result.unwrap_err());
            assert_eq!(fault, name.split(' ').next().unwrap(), "{name}");
        }
    }
}

#[test]
fn issuer_audience_and_roles_are_those_of_the_settings() {
    let config = || JwtKeys::json(TOKENS).roles_claim("realm_access.roles");
    let right = config().issuer("https://issuer.example").audience("another").audience("eureka");
    let verified = verifier(right).verify(&token("issued")).unwrap();
    assert_eq!(verified.identity().roles().collect::<Vec<_>>(), [Role::Operate]);
    for (config, expected) in [
        (config(), TokenFault::NoAudienceConfigured),
        (config().audience("eurek"), TokenFault::Audience),
        (config().audience("eureka").issuer("https://issuer.example/"), TokenFault::Issuer),
    ] {
        assert_eq!(verifier(config).verify(&token("issued")), Err(expected));
    }
    for (config, expected) in
        [(config().audience("eureka"), TokenFault::Audience), (config().issuer("x"), TokenFault::Issuer)]
    {
        assert_eq!(verifier(config).verify(&token("valid ES256")), Err(expected), "the claim is required");
    }
}

#[test]
fn text_that_is_no_token_is_unreadable() {
    let jwt = verifier(JwtKeys::json(TOKENS));
    let long = "a".repeat(16_000);
    for text in ["", ".", "..", "a.b.c", "e30.e30.", "\u{0}.\u{0}.\u{0}", &long, &".".repeat(16_000)] {
        let fault = jwt.verify(text).unwrap_err();
        assert!(matches!(fault, TokenFault::Unreadable | TokenFault::Algorithm), "{text}: {fault:?}");
    }
}

#[test]
fn unusable_set_of_keys_leaves_the_one_before() {
    let jwt = Jwt::new(JwtKeys::json(TOKENS));
    assert_eq!(jwt.verify(&token("valid ES256")), Err(TokenFault::NoKeys));
    jwt.set_keys(TOKENS.as_bytes()).unwrap();
    for (text, expected) in [
        ("", "not JSON"),
        ("{}", "no array"),
        (r#"{"keys":[]}"#, "none of its 0 keys"),
        (r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"},{"kty":"RSA","n":"AQAB","e":"AQAB","use":"enc"}]}"#, "none of its 2"),
    ] {
        assert!(jwt.set_keys(text.as_bytes()).unwrap_err().contains(expected), "{text}");
    }
    assert!(jwt.verify(&token("valid ES256")).is_ok());
}
