import { expect, test } from 'vitest'
import { networkOf } from '../../../supabase/functions/_shared/http/networkOf.ts'

test.each([
  ['an IPv4 address is itself', '203.0.113.7', '203.0.113.7'],
  ['an IPv4 address that is written as IPv6 is the IPv4 address', '::ffff:203.0.113.7', '203.0.113.7'],
  ['in hexadecimal, too', '::ffff:cb00:7107', '203.0.113.7'],
  ['an IPv4 address with a port is the address', '203.0.113.7:51234', '203.0.113.7'],
  ['an IPv6 address is its network of 64 bits', '2001:db8:1:2:a:b:c:d', '2001:db8:1:2::/64'],
  ['another of the same network counts with it', '2001:db8:1:2::1', '2001:db8:1:2::/64'],
  ['however it is written', '2001:0DB8:0001:0002:0000:0000:0000:0001', '2001:db8:1:2::/64'],
  ['with the zeros in front', '::1', '0:0:0:0::/64'],
  ['with the zeros behind', '2001:db8::', '2001:db8:0:0::/64'],
  ['with a port', '[2001:db8:1:2::1]:443', '2001:db8:1:2::/64'],
  ['with a zone', 'fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['what is no address stays what it is', 'not:an:address', 'not:an:address'],
  ['also with too many groups', '1:2:3:4:5:6:7:8:9', '1:2:3:4:5:6:7:8:9'],
  ['also with two gaps', '1::2::3', '1::2::3'],
])('networkOf(): %s', (_title, address, network) => {
  expect(networkOf(address)).toBe(network)
})
