/** REST as a plain client speaks it, in the name of each role. */
import { localKeys } from '../../../local/keys.ts'
import { demoClient } from '../../support/client.ts'
import type { RoleName } from '../matrix.ts'

export interface RestAnswer {
  status: number
  /** PostgREST's or PostgreSQL's code of a refusal. */
  code?: string
  /** Rows of a success; empty where none were asked for. */
  rows: Record<string, unknown>[]
  /** The total that `count=exact` asks for. */
  total?: number
  body: string
}

export interface RestRequest {
  method?: string
  body?: unknown
  prefer?: string[]
  headers?: Record<string, string>
}

export type Ask = (role: RoleName, path: string, request?: RestRequest) => Promise<RestAnswer>

export type Credentials = Record<RoleName, Record<string, string>>

/** What each role sends: keys for guest and service, else the token of a user of the seed. */
export async function credentialsOf(stack: { url: string }): Promise<Credentials> {
  const [owner, other, admin] = await Promise.all(
    (['ada', 'grace', 'admin'] as const).map(async (name) => ({
      apikey: localKeys.publishable,
      authorization: `Bearer ${(await demoClient(stack, name)).accessToken}`,
    })),
  )
  return {
    anon: { apikey: localKeys.publishable },
    owner: owner!,
    other: other!,
    admin: admin!,
    service_role: { apikey: localKeys.secret },
  }
}

export function restOf(stack: { url: string }, credentials: Credentials): Ask {
  return async (role, path, { method = 'GET', body, prefer = [], headers = {} } = {}) => {
    const response = await fetch(`${stack.url}/rest/v1/${path}`, {
      method,
      headers: {
        ...credentials[role],
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...(prefer.length > 0 && { prefer: prefer.join(', ') }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    })
    const text = await response.text()
    const json = text === '' ? undefined : JSON.parse(text)
    const total = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '')?.[1]
    return {
      status: response.status,
      code: response.ok ? undefined : json?.code,
      rows: response.ok && Array.isArray(json) ? json : [],
      total: total === undefined ? undefined : Number(total),
      body: text,
    }
  }
}

export function isRefused({ status, code, rows, total }: RestAnswer): boolean {
  return [401, 403].includes(status) && (code === '42501' || code === undefined) && rows.length === 0 &&
    !total
}
