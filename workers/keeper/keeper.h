/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper of keys: the only worker beside tunnel that links OpenSSL, and the only one that opens private keys for signing. It has
 * the folder STATE/keys (0700) and nothing else:
 *
 *   node.key, node.crt, authorities.crt      this node's, as `identity:` names them after enrolment
 *   ca.key, ca.crt                           on controllers: the domain's authority for nodes' certificates
 *   domain.key, domain.pub                   on controllers: Ed25519, signs configuration versions
 *
 * It runs where `control:` or `controller:` is configured. Ops of KEEPER_REQUEST, by who may ask:
 *   config-sync  "csr"                       -> a PEM request for a new key of this node, kept aside until its certificate comes
 *   config-sync  "install" text=PEM chain    -> that key and certificate become node.key and node.crt (both or none; KEYS_CHANGED)
 *   controller   "certify" args={node, days, flags} text=PEM request -> PEM certificate: URI hermes://DOMAIN/node/NODE, DNS NODE and
 *                NODE.DOMAIN, with flag "controller" also controller.DOMAIN; its serial is the answer's first line "serial HEX\n"
 *   controller   "sign" text=bytes           -> base64 of the Ed25519 signature
 *   controller   "authorities"               -> ca.crt;   "public" -> domain.pub (base64 of 32 bytes)
 * Private keys leave by no op. */
#ifndef HERMES_KEEPER_KEEPER_H
#define HERMES_KEEPER_KEEPER_H

#define KEEPER_FOLDER "keys"
#define KEEPER_SKEW 3600              /* s by which certificates begin before they are made: clocks differ */

#endif
