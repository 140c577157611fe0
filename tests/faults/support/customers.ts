/** Customers who want one thing at a time and ask for it, with its key, until they have a definite answer. */
import { localKeys } from '../../../local/keys.ts'
import type { SignedIn } from '../../support/client.ts'
import { orderOf } from '../../support/shop.ts'
import type { Random } from './random.ts'

export interface Wish {
  key: string
  who: SignedIn
  items: Record<string, number>
  /** What it is paid with; a good one is the wish's own, so the provider's ledger says whose a charge is. */
  token: string
  body: string
  /** The definite answers it got, in order. Hopefully all the same. */
  answers: Answer[]
}

export interface Answer {
  status: number
  body: string
  /** Of the envelope, where it is a refusal. */
  code: string | undefined
  replayed: boolean
  /** It will not be another the next time: success, or a refusal that is not for now only. */
  definite: boolean
}

/** There is plenty for all of these, and too little of what is rare: customers compete for it. */
const common: Record<string, number>[] = [
  { 'ROPE-10': 1 },
  { 'CLEAT-S': 3 },
  { 'CLEAT-S': 1, 'ROPE-10': 2 },
  { 'ROPE-10': 1, 'CLEAT-S': 2 },
]
const rare: Record<string, number>[] = [{ 'ANCHOR-4': 1, 'ROPE-10': 1 }, { 'LAMP-1': 1 }]

export function newWish(who: SignedIn, random: Random): Wish {
  const key = crypto.randomUUID()
  const items = random.pick(random.chance(0.15) ? rare : common)
  const token = random.chance(0.05) ? 'tok_declined' : `tok_${key}`
  return { key, who, items, token, body: JSON.stringify(orderOf(items, token)), answers: [] }
}

/** One request. Undefined where no answer came, or none within `patienceMs`. */
export async function ask(
  functionsUrl: string,
  wish: Wish,
  patienceMs = 10_000,
): Promise<Answer | undefined> {
  try {
    const response = await fetch(`${functionsUrl}/orders`, {
      method: 'POST',
      headers: {
        apikey: localKeys.publishable,
        authorization: `Bearer ${wish.who.accessToken}`,
        'content-type': 'application/json',
        'idempotency-key': wish.key,
      },
      body: wish.body,
      signal: AbortSignal.timeout(patienceMs),
    })
    const { status, headers } = response
    const body = await response.text()
    const forNow = [408, 425, 429].includes(status) || headers.has('retry-after')
    const answer = {
      status,
      body,
      code: /"code":"(\w+)"/.exec(body)?.[1],
      replayed: headers.get('idempotency-replayed') === 'true',
      definite: status < 300 || (status < 500 && !forNow),
    }
    if (answer.definite) wish.answers.push(answer)
    return answer
  } catch (error) {
    // What a client sees of a connection that broke, or of its own patience at its end.
    if (error instanceof TypeError || error instanceof DOMException) return undefined
    throw error
  }
}
