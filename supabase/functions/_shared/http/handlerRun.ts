/** One run of the handler of an idempotent route, and its outcome as an answer that can be stored. */
import { HoldfastError, isHoldfastError } from '../core/errors.ts'
import { SqlQuery, type Tx } from '../db/client.ts'
import {
  type AtomicFinished,
  type Finished,
  lastStatement,
  type LeasedClaim,
  type StoredAnswer,
} from '../resilience/idempotency.ts'
import type { CompletingTx, LeasedRequest } from './idempotencyOptions.ts'
import { errorAnswer, successBody, successFrame } from './responses.ts'
import type { Reply, Route, RouteContext } from './route.ts'

/** A request that is authenticated and valid; its context is extended by what the route's mode adds. */
export interface IdempotentExchange extends RouteContext {
  readonly functionName: string
  readonly requestId: string
  tx?: Tx
  idempotency?: LeasedRequest
}

/** A handler may run more than once: where a transaction has to be repeated. The last run counts. */
export class HandlerRun {
  /** The claim was taken over from an attempt that ended without an answer. */
  resumed = false
  /** What the handler refused with, where the answer is that refusal. */
  refused: HoldfastError | undefined
  /** The handler has left its last statement to the commit. */
  deferred = false
  readonly #exchange: IdempotentExchange
  readonly #route: Route
  readonly #key: string | undefined

  constructor(exchange: IdempotentExchange, route: Route, key: string | undefined) {
    this.#exchange = exchange
    this.#route = route
    this.#key = key
  }

  async inTransaction(tx: Tx): Promise<AtomicFinished> {
    this.#exchange.tx = tx
    this.deferred = false
    const reply = await this.#handle()
    if (isAnswer(reply)) return { answer: reply, store: true }
    const { data } = reply
    if (!(data instanceof SqlQuery)) return { answer: this.#answer(reply, this.#body(reply)), store: true }
    this.deferred = true
    return { answer: this.#answer(reply, ''), store: true, deferred: { ...this.#frame(reply), last: data } }
  }

  async withClaim(claim: LeasedClaim): Promise<Finished> {
    this.resumed = claim.resumed
    let completed: { reply: Reply; answer: StoredAnswer | Promise<StoredAnswer> } | undefined
    this.#exchange.idempotency = {
      key: this.#key,
      effectId: claim.effectId,
      resumed: claim.resumed,
      attempt: claim.attempt,
      complete: (tx, reply) => {
        completed = { reply: reply as Reply, answer: this.#complete(claim, tx, reply) }
        return completed.reply
      },
    }
    const reply = await this.#handle()
    if (isAnswer(reply)) return { answer: reply, store: true }
    if (completed?.reply === reply) {
      return { answer: await completed.answer, store: true, completed: claim.completeWith !== undefined }
    }
    if (reply.data instanceof SqlQuery) {
      throw new TypeError(
        'Cannot answer with a statement: return what context.idempotency.complete() returned',
      )
    }
    return { answer: this.#answer(reply, this.#body(reply)), store: true }
  }

  /**
   * A refusal that stands, as an answer. Failures of ours, and whatever may go otherwise next time, are thrown on:
   * they are never stored.
   */
  refuse(error: unknown): StoredAnswer {
    if (!isHoldfastError(error) || error.status >= 500 || error.retryable) throw error
    this.refused = error
    return errorAnswer(error, this.#exchange.requestId, this.#exchange.headers.get('accept'))
  }

  async #handle(): Promise<Reply | StoredAnswer> {
    this.refused = undefined
    try {
      return await this.#route.handler(this.#exchange)
    } catch (error) {
      return this.refuse(error)
    }
  }

  /** Sends nothing itself: both statements travel with the commit of the transaction. */
  #complete(
    { completeWith }: LeasedClaim,
    tx: CompletingTx,
    reply: Reply,
  ): StoredAnswer | Promise<StoredAnswer> {
    if (!(reply.data instanceof SqlQuery)) {
      const answer = this.#answer(reply, this.#body(reply))
      if (completeWith !== undefined) tx.beforeCommit(completeWith(answer))
      return answer
    }
    const frame = this.#frame(reply)
    const answer = this.#answer(reply, '')
    const whole = tx.atCommit<{ data: string }>(lastStatement(reply.data))
      .then(([row]) => ({ ...answer, body: frame.prefix + row!.data + frame.suffix }))
    // Where the transaction fails, the handler hears of it; nobody may come to ask for this.
    whole.catch(() => {})
    if (completeWith !== undefined) tx.beforeCommit(completeWith(answer, frame))
    return whole
  }

  #answer({ status = this.#route.status, headers = {} }: Reply, body: string): StoredAnswer {
    const own = Object.entries(headers).flatMap(([name, value]) =>
      [value].flat().map((one): [string, string] => [name, one])
    )
    const typed = own.some(([name]) => name.toLowerCase() === 'content-type')
    return {
      status,
      headers: typed ? own : [['content-type', 'application/json; charset=utf-8'], ...own],
      body,
    }
  }

  #body(reply: Reply): string {
    return successBody(reply.data, this.#exchange.requestId, reply.pagination)
  }

  #frame(reply: Reply) {
    return successFrame(this.#exchange.requestId, reply.pagination)
  }
}

function isAnswer(value: Reply | StoredAnswer): value is StoredAnswer {
  return 'body' in value
}
