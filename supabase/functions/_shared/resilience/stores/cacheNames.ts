/** Keys and tags as stores take them: readable where that is possible, else as a digest. */

const longest = 255
const digested = 'sha256:'

/** Different names stay different. */
export async function storedName(name: string): Promise<string> {
  if (isPlain(name)) return name
  const units = new Uint16Array(name.length)
  for (let at = 0; at < name.length; at++) units[at] = name.charCodeAt(at)
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', units))
  return digested + Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

export async function storedNames(names: readonly string[]): Promise<readonly string[]> {
  return names.every(isPlain) ? names : await Promise.all(names.map(storedName))
}

/** Half a surrogate pair would become the same character as any other half. */
function isPlain(name: string): boolean {
  return name.length > 0 && name.length <= longest && !name.startsWith(digested) && name.isWellFormed() &&
    // deno-lint-ignore no-control-regex
    !/[\x00-\x1f\x7f]/.test(name)
}
