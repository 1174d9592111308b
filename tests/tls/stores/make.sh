#!/usr/bin/env bash
# Creates the stores in the current folder, with OpenSSL 3 and keytool. The password is changeit.
set -eu
T=$(mktemp -d)
# A build without optimization would need seconds for the usual number of iterations.
FEW="-J-Dkeystore.pkcs12.certPbeIterationCount=100 -J-Dkeystore.pkcs12.keyPbeIterationCount=100 -J-Dkeystore.pkcs12.macIterationCount=100"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $T/ca.key -out ca.pem -days 36500 -subj "/CN=stores" -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
leaf() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $2 -out $T/$1.csr -subj "/CN=$1" 2>/dev/null
 printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:false\n' > $T/ext
 openssl x509 -req -in $T/$1.csr -CA ca.pem -CAkey $T/ca.key -CAcreateserial -days 36500 -extfile $T/ext -out $3 2>/dev/null; }
leaf server server.key server.pem
leaf client $T/client.key $T/client.pem
cat $T/client.pem ca.pem > $T/chain.pem
openssl pkcs12 -export -in $T/client.pem -inkey $T/client.key -certfile ca.pem -name client -iter 100 -passout pass:changeit -out identity-openssl.p12
openssl pkcs12 -export -legacy -in $T/client.pem -inkey $T/client.key -certfile ca.pem -name client -iter 100 -passout pass:changeit -out identity-legacy.p12
rm -f identity-keytool.p12 trust-keytool.p12 identity.jks
keytool $FEW -importkeystore -srckeystore identity-openssl.p12 -srcstoretype PKCS12 -srcstorepass changeit -destkeystore identity-keytool.p12 -deststoretype PKCS12 -deststorepass changeit 2>/dev/null
keytool $FEW -importkeystore -srckeystore identity-openssl.p12 -srcstoretype PKCS12 -srcstorepass changeit -destkeystore identity.jks -deststoretype JKS -deststorepass changeit 2>/dev/null
keytool $FEW -importcert -noprompt -alias ca -file ca.pem -keystore trust-keytool.p12 -storetype PKCS12 -storepass changeit 2>/dev/null
openssl pkcs12 -export -nokeys -in ca.pem -iter 100 -passout pass:changeit -out trust-openssl.p12
rm -r $T ca.srl
