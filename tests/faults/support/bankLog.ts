/**
 * What each client of the bank writes down, a line at a time, before it goes on. Its process may be killed at any
 * instant: what it has written stays.
 */
import { z } from 'zod'

export interface Transfer {
  id: string
  source: number
  target: number
  amount: number
  /** The user in whose name it is made. */
  by: string
}

export interface Started extends Transfer {
  event: 'started'
  way: string
}

export type BankEvent =
  | Started
  /** `transactionId` as the manager gave it. */
  | { event: 'committed'; id: string; transactionId: string }
  /** Reported as rolled back. */
  | { event: 'refused'; id: string; code: string; text: string }
  | { event: 'unknown'; id: string }
  /** Its afterCommit ran. */
  | { event: 'after'; id: string }

const id = z.string()
const eventSchema: z.ZodType<BankEvent> = z.discriminatedUnion('event', [
  z.object({
    event: z.literal('started'),
    id,
    way: z.string(),
    source: z.int(),
    target: z.int(),
    amount: z.int(),
    by: z.string(),
  }),
  z.object({ event: z.literal('committed'), id, transactionId: z.string() }),
  z.object({ event: z.literal('refused'), id, code: z.string(), text: z.string() }),
  z.object({ event: z.literal('unknown'), id }),
  z.object({ event: z.literal('after'), id }),
])

/** Appends each event in one write. */
export function openBankLog(file: string): (event: BankEvent) => void {
  const log = Deno.openSync(file, { create: true, append: true })
  const encoder = new TextEncoder()
  return (event) => void log.writeSync(encoder.encode(`${JSON.stringify(event)}\n`))
}

/** All events of one process, in order. */
export async function readBankLog(file: string): Promise<BankEvent[]> {
  const text = await Deno.readTextFile(file)
  return text.split('\n').slice(0, -1).map((line) => eventSchema.parse(JSON.parse(line)))
}
