/** The ports of a stack, counted from one number, and whether they are free. */
import { LocalError } from '../errors.ts'
import { describePortHolder } from '../postgres/portHolder.ts'

export interface StackPorts {
  api: number
  database: number
  payments: number
}

/** The port that `supabase start` gives the API. */
export const defaultPort = 54321

export function portsFrom(port: number): StackPorts {
  return { api: port, database: port + 1, payments: port + 9 }
}

/** Throws a `LocalError` that names whoever listens on the port. */
export async function requireFreePort(port: number, use: string): Promise<void> {
  if (isFree(port)) return
  const holder = await describePortHolder(port)
  throw new LocalError(`Cannot use port ${port} for ${use}: it is taken${holder ? ` by ${holder}` : ''}`, {
    where: `127.0.0.1:${port}`,
    fix: `Stop that program, or start on other ports: npm start -- --port ${suggestPort(port)}`,
  })
}

/** Whether somebody could listen there now. */
export function isFree(port: number): boolean {
  try {
    Deno.listen({ hostname: '127.0.0.1', port }).close()
    return true
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse || error instanceof Deno.errors.PermissionDenied) return false
    throw error
  }
}

/** The nearest number from which all ports of a stack are free. */
export function suggestPort(taken: number): number {
  const base = Math.floor(taken / 100) * 100 + 21
  for (let port = base + 100; port < 65_000; port += 100) {
    if (Object.values(portsFrom(port)).every(isFree)) return port
  }
  return defaultPort
}
