/** Whom an address stands for, when calls are counted. */

/**
 * An IPv4 address as it is. Of an IPv6 address the network, its first 64 bits: whoever has one address there has them all,
 * and would otherwise have a limit for each. What is no address is returned as it is.
 */
export function networkOf(address: string): string {
  if (!address.includes(':')) return address
  // As IPv6 has it, or with a port.
  const v4 = /^(?:::ffff:)?(\d+\.\d+\.\d+\.\d+)(?::\d+)?$/i.exec(address)
  if (v4 !== null) return v4[1]!
  const [head, tail, ...more] = address.replace(/^\[|\](?::\d+)?$|%.*$/g, '').toLowerCase().split('::')
  const first = groupsOf(head)
  const last = groupsOf(tail)
  const zeros = tail === undefined ? [] : Array<string>(Math.max(0, 8 - first.length - last.length)).fill('0')
  const groups = [...first, ...zeros, ...last]
  if (more.length > 0 || groups.length !== 8 || !groups.every((group) => /^[0-9a-f]{1,4}$/.test(group))) {
    return address
  }
  if (groups.slice(0, 5).every((group) => /^0+$/.test(group)) && groups[5] === 'ffff') return mappedOf(groups)
  return `${groups.slice(0, 4).map((group) => parseInt(group, 16).toString(16)).join(':')}::/64`
}

function groupsOf(part: string | undefined): string[] {
  return part === undefined || part === '' ? [] : part.split(':')
}

function mappedOf([, , , , , , high, low]: string[]): string {
  return [high, low].flatMap((group) => {
    const bits = parseInt(group!, 16)
    return [bits >> 8, bits & 255]
  }).join('.')
}
