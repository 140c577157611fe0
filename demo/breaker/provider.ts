/** The payment provider of the demo: how it is broken and mended, and its own log of who has called it. */
import { z } from 'zod'

const callSchema = z.object({ at: z.string().transform((text) => Date.parse(text)), mode: z.string() })

export type ProviderCall = z.infer<typeof callSchema>

export function providerAt(url: string) {
  return {
    async behave(mode: 'ok' | 'fail'): Promise<void> {
      const response = await fetch(new URL('/_control', url), {
        method: 'POST',
        body: JSON.stringify({ mode }),
      })
      await response.body?.cancel()
      if (!response.ok) throw new Error(`The payments stand-in refused the mode ${mode}: ${response.status}`)
    },
    /** Every call it has received, oldest first. */
    async calls(): Promise<ProviderCall[]> {
      const response = await fetch(new URL('/_control/log', url))
      return z.object({ data: z.array(callSchema) }).parse(await response.json()).data
    },
  }
}
